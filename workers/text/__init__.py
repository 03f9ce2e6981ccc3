"""Text on its way into tokens and out of them: templates, grammars, stop strings. No engine."""
