"""KV cells and their owners, kept prefixes, the host cache and its spill to disk."""
