"""Routes for who runs the server: models, jobs, monitoring."""
