"""Margin over HTTP: health, accounts, simulations, settings and what assets count for."""

from api.margin.configuration import routes as configuration_routes
from api.margin.routes import routes

ROUTERS = (configuration_routes, routes)

__all__ = ["ROUTERS"]
