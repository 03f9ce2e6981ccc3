"""What the engines of both libraries share."""
