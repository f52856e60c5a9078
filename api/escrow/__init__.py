"""Escrows over HTTP: their shapes, their translation, and their routes."""

from api.escrow.commands import routes as command_routes
from api.escrow.routes import routes

ROUTERS = (routes, command_routes)

__all__ = ["ROUTERS"]
