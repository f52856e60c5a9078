"""Settlement commands: taken first, carried out in the order received, each to one outcome.

A command moves the ledger alone (deposit, withdrawal, transfer) or acts on an escrow. The two kinds go in two lanes.
What names the same account is carried out in the order received across the lanes; what names the same escrow, too.
Commands of one account on different escrows may overtake one another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, Protocol, TypeVar
from uuid import UUID

from domain.errors import Refusal
from domain.ids import USER_ID_RULE, is_user_id

CODES: Final = {
    "account_ref_invalid": f"an account is named by its user's id: {USER_ID_RULE}",
    "amount_invalid": "the amount of a command is greater than zero",
    "asset_mismatch": "the asset of a command is that of its escrow",
    "counterparty_same": "a transfer goes to another account",
    "field_not_for_kind": "the field has no place in a command of this kind",
    "required": "commands of this kind need the field",
}


class CommandKind(StrEnum):
    """What a command asks for."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    TRANSFER = "transfer"
    ESCROW_FUND = "escrow_fund"
    ESCROW_RELEASE = "escrow_release"
    ESCROW_REFUND = "escrow_refund"


class CommandStatus(StrEnum):
    """Where a command stands. The last three are final; ``FAILED`` is a fault of ours, not a rule's no."""

    RECEIVED = "RECEIVED"
    PROCESSING = "PROCESSING"
    SETTLED = "SETTLED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


ESCROW_KINDS: Final = frozenset({CommandKind.ESCROW_FUND, CommandKind.ESCROW_RELEASE, CommandKind.ESCROW_REFUND})
FINISHED: Final = frozenset({CommandStatus.SETTLED, CommandStatus.REJECTED, CommandStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for. ``account_ref`` is whose money moves in or out, and for an escrow the party that acts.

    ``milestones`` are positions in the escrow; None means all to which the command can apply.
    """

    command_id: str
    kind: CommandKind
    account_ref: str
    asset_symbol: str
    amount_minor: int
    counterparty_ref: str | None = None
    escrow_id: UUID | None = None
    milestones: tuple[int, ...] | None = None
    description: str | None = None

    def fingerprint(self) -> bytes:
        """SHA-256 of the content: equal for commands that say the same, however they were written."""
        said = {
            "kind": self.kind,
            "account_ref": self.account_ref,
            "asset_symbol": self.asset_symbol,
            "amount_minor": self.amount_minor,
            "counterparty_ref": self.counterparty_ref,
            "escrow_id": None if self.escrow_id is None else str(self.escrow_id),
            "milestones": self.milestones,
            "description": self.description,
        }
        # What is absent is left out, so that a field added later leaves older fingerprints as they are.
        present = {name: value for name, value in said.items() if value is not None}
        return sha256(json.dumps(present, sort_keys=True, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: ``transaction_id`` is what it became in the ledger, ``code`` why it is none."""

    status: CommandStatus
    code: str | None = None
    reason: str | None = None
    transaction_id: UUID | None = None


def kind_of(named: CommandKind | None, escrow_id: UUID | None) -> CommandKind:
    """The kind of a command that may leave it out: with an escrow it funds, without one it deposits."""
    if named is not None:
        return named
    return CommandKind.DEPOSIT if escrow_id is None else CommandKind.ESCROW_FUND


def check(command: Command) -> None:
    """Refuses a command that no ledger and no escrow could carry out; ``field`` is its name in the command."""
    if command.amount_minor <= 0:
        raise Refusal("amount_invalid", "the amount must be greater than zero", field="amount")
    for field, ref in (("account_ref", command.account_ref), ("counterparty_ref", command.counterparty_ref)):
        if ref is not None and not is_user_id(ref):
            raise Refusal("account_ref_invalid", "this cannot name a user's account", field=field)
    on_escrow, transfer = command.kind in ESCROW_KINDS, command.kind is CommandKind.TRANSFER
    for field, value, wanted in (
        ("escrow_id", command.escrow_id, on_escrow),
        ("counterparty_ref", command.counterparty_ref, transfer),
    ):
        if wanted and value is None:
            raise Refusal("required", f"a command of kind {command.kind} needs {field}", field=field)
        if value is not None and not wanted:
            raise Refusal("field_not_for_kind", f"a command of kind {command.kind} has no {field}", field=field)
    if command.milestones is not None and not on_escrow:
        raise Refusal("field_not_for_kind", f"a command of kind {command.kind} has no milestones", field="milestones")
    if command.description is not None and on_escrow:
        raise Refusal("field_not_for_kind", f"a command of kind {command.kind} has no description", field="description")
    if command.counterparty_ref == command.account_ref:
        raise Refusal("counterparty_same", "a transfer goes to another account", field="counterparty_ref")


def check_asset(named: str, of_escrow: str) -> None:
    """Refuses a command on an escrow that counts in another asset."""
    if named != of_escrow:
        raise Refusal("asset_mismatch", f"the escrow is in {of_escrow}, not in {named}", field="asset_symbol")


class Queued(Protocol):
    """One that stands in a lane."""

    @property
    def waits(self) -> bool:
        """Whether an earlier command of the other lane has to end first."""

    @property
    def keys(self) -> tuple[object, ...]:
        """What may not be overtaken: its accounts in the ledger's lane, its escrow in the escrows' lane."""


QueuedT = TypeVar("QueuedT", bound=Queued)


def in_turn(lane: Iterable[QueuedT], held: set[object]) -> list[QueuedT]:
    """Those of ``lane``, which is in the order received, whose turn has come.

    Who waits holds up everybody behind that shares a key. ``held`` are the keys that are held up; it grows, so that a
    lane can be read page by page.
    """
    taken: list[QueuedT] = []
    for queued in lane:
        if queued.waits or not held.isdisjoint(queued.keys):
            held.update(queued.keys)
        else:
            taken.append(queued)
    return taken
