"""Sequences that run together: prompts in chunks, rows of decoding, drafts."""
