"""The memory of one model, by the rules of each format's library."""
