"""Prices: the current one of each asset, and how it was before."""

from db.prices.queries import PRICES_CHANNEL, Bucket, PriceRow, buckets, current, list_rows

__all__ = ["PRICES_CHANNEL", "Bucket", "PriceRow", "buckets", "current", "list_rows"]
