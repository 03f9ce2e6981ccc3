"""The process of one model: its threads, admission of jobs, slots, heartbeat."""
