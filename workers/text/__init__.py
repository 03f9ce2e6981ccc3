"""Text processing without an engine: chat templates, grammars, detokenization, stop strings."""
