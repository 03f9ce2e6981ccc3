"""The HTTP side: routes, the jobs that they make, the answers that clients know. No engine."""
