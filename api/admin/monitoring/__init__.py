"""Health, readiness, metrics, and the API's documentation pages."""
