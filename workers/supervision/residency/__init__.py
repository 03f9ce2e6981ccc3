"""Which models have a process on this machine: start, park, make room."""
