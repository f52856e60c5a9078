"""Webhooks: endpoints, what they get, and what came of it."""

from api.webhooks import deliveries, routes

#: Fixed names before ids.
ROUTERS = (routes.routes, deliveries.routes)
