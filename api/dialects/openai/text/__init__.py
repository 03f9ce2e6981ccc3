"""Routes about tokens and texts alone: tokenize, detokenize, apply-template, counts."""
