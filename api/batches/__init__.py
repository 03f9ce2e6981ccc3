"""Batches: their routes, and the process that works through them."""
