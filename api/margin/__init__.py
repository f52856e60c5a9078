"""Margin over HTTP: health, accounts, simulations, risk, settings and what assets count for."""

from api.margin.configuration import routes as configuration_routes
from api.margin.risk import routes as risk_routes
from api.margin.routes import routes

ROUTERS = (configuration_routes, routes, risk_routes)

__all__ = ["ROUTERS"]
