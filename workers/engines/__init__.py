"""Engines: loaded models that run a continuous batch. One package per library, one contract."""
