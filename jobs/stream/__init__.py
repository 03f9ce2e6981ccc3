"""Live event streams: the subscription connection, and ordering of events."""
