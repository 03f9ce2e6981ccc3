"""Lua scripts for Redis."""
