"""The worker process of one model: threads, loading, admission of jobs, slots, heartbeat."""
