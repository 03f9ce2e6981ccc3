"""/v1/live: what the page shows of models and queues, once a second."""
