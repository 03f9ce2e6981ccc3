"""Jobs of requests: which model is meant, submitting, following, and what ends them early."""
