"""All that exists because of RQ: taking jobs from its queues and keeping its books."""
