"""The markup that models write around tool calls and reasoning: reading it, and constraining it."""
