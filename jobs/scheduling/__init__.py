"""When jobs run: their order in a queue, and the classes that are held."""
