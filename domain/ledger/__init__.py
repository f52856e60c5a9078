"""Double entry: money never appears or vanishes, it moves between accounts, and holds keep part of a balance apart.

A posting is a set of legs that sum to zero per asset. What comes from or goes to the outside world does so through
``SYSTEM_EXTERNAL``, the only account that may owe. Nothing posted is ever changed: corrections are reversals.
"""

from domain.ledger.decide import check, check_frozen, decide
from domain.ledger.model import (
    CODES,
    LIMITED,
    NO_CONTROLS,
    REVERSIBLE,
    SYSTEM_EXTERNAL,
    SYSTEM_FEES,
    Balance,
    Controls,
    Freezes,
    Leg,
    Limits,
    Posting,
    Pot,
    TransactionKind,
    check_account_ref,
)
from domain.ledger.postings import deposit, merge, pay_from_hold, place_hold, reverse, transfer, withdrawal

__all__ = [
    "CODES",
    "LIMITED",
    "NO_CONTROLS",
    "REVERSIBLE",
    "SYSTEM_EXTERNAL",
    "SYSTEM_FEES",
    "Balance",
    "Controls",
    "Freezes",
    "Leg",
    "Limits",
    "Posting",
    "Pot",
    "TransactionKind",
    "check",
    "check_account_ref",
    "check_frozen",
    "decide",
    "deposit",
    "merge",
    "pay_from_hold",
    "place_hold",
    "reverse",
    "transfer",
    "withdrawal",
]
