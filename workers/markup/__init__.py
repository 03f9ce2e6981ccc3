"""What models write around their calls of tools and around their thinking."""
