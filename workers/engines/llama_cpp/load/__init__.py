"""From a GGUF file to a loaded model, its tokenizer and its context."""
