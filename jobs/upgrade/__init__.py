"""What earlier versions left in Redis, moved to where this one looks for it."""
