"""The command line: `mgs`, and what it starts."""
