"""The ledger's memory: its tables, the one posting path, and how it is read."""

from db.ledger.posting import post, post_each
from db.ledger.queries import (
    AccountBalance,
    LedgerTransaction,
    TransactionFilter,
    TrialBalance,
    balances,
    find_asset,
    find_by_reference,
    find_reversal,
    find_transaction,
    find_transactions,
    get_asset,
    list_assets,
    list_transactions,
    trial_balance,
    trial_balances,
)

__all__ = [
    "AccountBalance",
    "LedgerTransaction",
    "TransactionFilter",
    "TrialBalance",
    "balances",
    "find_asset",
    "find_by_reference",
    "find_reversal",
    "find_transaction",
    "find_transactions",
    "get_asset",
    "list_assets",
    "list_transactions",
    "post",
    "post_each",
    "trial_balance",
    "trial_balances",
]
