"""Models on disk and loaded models: list, load, unload, adapters."""
