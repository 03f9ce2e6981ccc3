"""From a job to its events: prompt, tokens, text, answer."""
