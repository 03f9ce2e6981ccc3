"""Reads and constrains the markup that models write around tool calls and reasoning."""
