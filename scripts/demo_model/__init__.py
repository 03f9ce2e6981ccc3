"""The demo model that the repository ships: corpus, training, export and check (see README.md)."""
