"""Webhooks: endpoints, events, deliveries, signatures."""
