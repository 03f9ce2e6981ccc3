"""``mgs check``: tries a machine with a server of its own, and writes a report."""
