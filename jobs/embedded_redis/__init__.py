"""The Redis server that comes along for machines that have none."""
