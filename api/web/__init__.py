"""HTTP for all routes: protocol, bodies, keys, errors, server-sent events."""
