"""What any HTTP route needs: protocol, bodies, keys, errors, server-sent events."""
