"""Settlement commands over HTTP: their shapes, their intake, and their routes."""

from api.settlement.models import LineAnswer
from api.settlement.routes import line_routes, routes

ROUTERS = (line_routes, routes)

__all__ = ["ROUTERS", "LineAnswer"]
