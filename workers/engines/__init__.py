"""Engines run a loaded model with continuous batching: one package per backend, one contract."""
