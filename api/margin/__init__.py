"""Margin over HTTP: what may become of an account."""

from api.margin.risk import routes as risk_routes

ROUTERS = (risk_routes,)

__all__ = ["ROUTERS"]
