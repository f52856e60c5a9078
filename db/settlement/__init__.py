"""The memory of settlement commands: intake, lanes, and how they are read."""

from db.settlement.intake import Asked, Taken, take
from db.settlement.lanes import (
    EscrowTurn,
    LedgerTurn,
    escrow_turns,
    finish,
    ledger_turns,
    list_waiting,
    take_up,
    taken_up,
)
from db.settlement.queries import CommandFilter, RecordedCommand, find, list_

__all__ = [
    "Asked",
    "CommandFilter",
    "EscrowTurn",
    "LedgerTurn",
    "RecordedCommand",
    "Taken",
    "escrow_turns",
    "find",
    "finish",
    "ledger_turns",
    "list_",
    "list_waiting",
    "take",
    "take_up",
    "taken_up",
]
