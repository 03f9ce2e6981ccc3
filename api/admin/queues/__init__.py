"""/management/queues: what waits and runs by model and class; hold, drain, resume."""
