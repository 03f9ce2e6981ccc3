"""The HTTP API: routes, their jobs and responses. Imports no engine."""
