"""Models on disk and in memory: list, load, unload, adapters."""
