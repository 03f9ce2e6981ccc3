"""The embedded Redis server, for machines without a Redis of their own."""
