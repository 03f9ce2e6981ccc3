"""Loads a GGUF file: the model, its tokenizer and its context."""
