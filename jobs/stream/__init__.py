"""Following jobs: a subscriber's connection, and events put into their order."""
