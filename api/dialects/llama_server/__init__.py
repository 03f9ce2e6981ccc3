"""llama-server's own completions, for the clients that speak them."""
