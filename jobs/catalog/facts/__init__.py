"""What the files of a model say about it, in one form for both formats."""
