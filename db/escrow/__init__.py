"""The escrow's memory."""

from db.escrow.queries import (
    EscrowFilter,
    find,
    find_by_reference,
    find_many,
    insert,
    list_,
    list_overdue,
    lock,
    update,
)

__all__ = [
    "EscrowFilter",
    "find",
    "find_by_reference",
    "find_many",
    "insert",
    "list_",
    "list_overdue",
    "lock",
    "update",
]
