"""Webhooks: endpoints with their keys, what is to be delivered to them, and every attempt."""
