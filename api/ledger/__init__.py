"""The ledger over HTTP: its shapes, its operations, and its routes."""

from api.ledger.routes import account_routes, asset_routes, book_routes, transaction_routes
from api.ledger.seals import checkpoint_routes, proof_routes
from api.ledger.transfer_routes import transfer_routes

ROUTERS = (
    account_routes,
    book_routes,
    transaction_routes,
    transfer_routes,
    asset_routes,
    checkpoint_routes,
    proof_routes,
)

__all__ = ["ROUTERS"]
