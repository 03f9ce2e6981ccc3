"""KV cells and states: who holds them, kept prefixes, the host cache, the disk."""
