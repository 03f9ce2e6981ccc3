"""Loads a model folder: the model, its tokenizer and the parts of its engine."""
