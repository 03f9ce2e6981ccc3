"""Webhooks: routes for endpoints, and the sender of deliveries."""
