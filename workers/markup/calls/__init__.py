"""The ways in which models write calls of tools: each is written and read by one object."""
