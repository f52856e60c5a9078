"""Prices: the current one of each asset, and how it was before."""

from db.prices.queries import current

__all__ = ["current"]
