"""``mgs service``: the server as a job of launchd (macOS) or a user unit of systemd (Linux)."""
