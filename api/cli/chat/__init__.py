"""``mgs chat``: a conversation in the terminal, through the HTTP API."""
