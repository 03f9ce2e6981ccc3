"""Prefill in chunks, the running batch, and speculative decoding."""
