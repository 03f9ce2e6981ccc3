"""From a folder of files to a loaded model, its tokenizer and its engine."""
