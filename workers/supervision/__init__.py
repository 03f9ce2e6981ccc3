"""Who runs which model: starting, watching, restarting workers, and what a death means."""
