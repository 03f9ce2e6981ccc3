"""KV states: kept in memory, found by common beginnings, written to disk."""
