"""Runs a job: encodes its prompt, decodes, and publishes its events."""
