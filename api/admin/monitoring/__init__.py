"""Health, readiness, metrics, the pages that describe the API."""
