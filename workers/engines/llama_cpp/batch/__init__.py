"""Schedules the running sequences, and runs decode passes for them."""
