"""What the API and the workers share: the contract, Redis, the catalog of models."""
