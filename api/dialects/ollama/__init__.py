"""ollama's API under /api: its bodies to jobs, their events to lines of JSON, the models."""
