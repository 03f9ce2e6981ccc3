"""Access to Redis: key names, connections, Lua scripts, and the stores that use them."""
