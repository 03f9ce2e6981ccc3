"""/v1/rerank."""
