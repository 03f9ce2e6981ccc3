"""Redis' scripts, as text."""
