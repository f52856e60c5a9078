"""Webhooks: what endpoints get, worked off endpoint by endpoint."""
