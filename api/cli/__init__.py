"""The command line ``mgs``, and the server that it starts."""
