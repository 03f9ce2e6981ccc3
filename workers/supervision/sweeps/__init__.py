"""What is ended because its time is over."""
