"""Models that come and go: parking, and failed loads."""
