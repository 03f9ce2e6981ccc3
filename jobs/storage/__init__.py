"""All that is in Redis: names of keys, connections, scripts, and the stores over them."""
