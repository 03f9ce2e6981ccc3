"""Everything specific to RQ: taking jobs from its queues and keeping its records."""
