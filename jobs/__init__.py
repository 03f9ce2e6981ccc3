"""Code shared by the API and the workers: the contract, Redis, the model catalog, settings."""
