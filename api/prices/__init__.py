"""Prices over HTTP: what they are, how they were, and refreshing them."""

from api.prices.routes import ROUTERS

__all__ = ["ROUTERS"]
