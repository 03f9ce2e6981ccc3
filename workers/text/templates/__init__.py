"""Chat templates: what they get, what they may do, and whose text they write."""
