"""Sequences that run together: which tokens the next decode pass takes, and what it brings."""
