"""Identifiers: UUIDv7 for our rows, readable ids for workflows, and what a tenant may call its users."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

#: Accounts and actors of our own begin like this, so no user may.
SYSTEM_PREFIX: Final = "system:"

#: Whose events everybody sees: what happens to no tenant in particular, as a change of prices.
PLATFORM_TENANT: Final = UUID(int=0)

#: The workflow that carries the margin book; there is one.
BOOK_WORKFLOW_ID: Final = "book"

#: What ``is_user_id`` asks for, in words.
USER_ID_RULE: Final = (
    "a user id has 1 to 200 characters, is not blank, has no control characters and does not begin with 'system:'"
)

_MAX_USER_ID_CHARACTERS = 200
_RANDOM_BYTES = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def uuid7(at: datetime, random: bytes) -> UUID:
    """A version 7 UUID (RFC 9562, section 5.7) from an aware instant and ten random bytes.

    Ids made later sort later (to the millisecond), which lets an id serve as a page cursor.
    """
    if len(random) != _RANDOM_BYTES:
        raise ValueError(f"uuid7 takes {_RANDOM_BYTES} random bytes, not {len(random)}")
    if at.tzinfo is None:
        raise ValueError("uuid7 takes an aware datetime")
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1) & (1 << 48) - 1
    entropy = int.from_bytes(random)
    high = milliseconds << 16 | 0x7 << 12 | entropy >> 68 & 0xFFF
    low = 0b10 << 62 | entropy & (1 << 62) - 1
    return UUID(int=high << 64 | low)


def escrow_workflow_id(escrow_id: UUID) -> str:
    """The id of the workflow that carries one escrow; it reads in the Temporal UI."""
    return f"escrow:{escrow_id}"


def escrow_step_id(escrow_id: UUID, step: str | UUID) -> str:
    """The name of one step of an escrow, under which its receipt is kept; a command's step is its command id."""
    return f"{escrow_workflow_id(escrow_id)}:{step}"


def transfer_workflow_id(transfer_id: UUID) -> str:
    """The id of the workflow that carries one deposit, withdrawal, transfer (in one phase or two) or reversal."""
    return f"transfer:{transfer_id}"


def transfer_step_id(transfer_id: UUID, step: str | UUID) -> str:
    """The name of one step of a transfer in two phases; a command's step is its command id."""
    return f"{transfer_workflow_id(transfer_id)}:{step}"


def chain_workflow_id(chain_id: UUID) -> str:
    """The id of the workflow that carries linked transfers."""
    return f"chain:{chain_id}"


def chain_transaction_id(chain_id: UUID, index: int) -> UUID:
    """The transaction of a chain's link, counted from 0: the first has the chain's id, the others follow from it."""
    return chain_id if index == 0 else uuid5(chain_id, str(index))


def settlement_workflow_id(tenant_id: UUID) -> str:
    """The id of the workflow that carries a tenant's settlement commands."""
    return f"settlement:{tenant_id}"


def command_subject(command_id: str) -> str:
    """What events and audit call a settlement command."""
    return f"command:{command_id}"


def settlement_operation_id(tenant_id: UUID, command_id: str) -> UUID:
    """The single effect of a settlement command on an escrow: the same for every delivery of it."""
    return uuid5(tenant_id, f"settlement:{command_id}")


def reconciliation_workflow_id(tenant_id: UUID, run_id: UUID) -> str:
    """The id of the workflow that compares one tenant's books once."""
    return f"reconciliation:{tenant_id}:{run_id}"


def price_refresh_workflow_id(refresh_id: UUID) -> str:
    """The id of the workflow that refreshes prices because somebody asked."""
    return f"price-refresh:{refresh_id}"


def margin_check_workflow_id(check_id: UUID) -> str:
    """The id of the workflow that looks at one margin account once."""
    return f"margin-check:{check_id}"


def margin_check_id(event_id: UUID, user_id: str) -> UUID:
    """The check that an event starts for one of the users that it touches: the same for every delivery of it."""
    return uuid5(event_id, f"margin:{user_id}")


def alert_workflow_id(notification_id: UUID) -> str:
    """The id of the workflow that carries one alert; also what events and audit call it."""
    return f"alert:{notification_id}"


def relayer_workflow_id(relayer_id: str) -> str:
    """The id of the workflow that follows one contract on one chain; also what events and audit call the relayer.

    ``relayer_id`` is the chain's name and the address, as ``mainnet:0x…``.
    """
    return f"relayer:{relayer_id}"


def chain_settlement_workflow_id(relayer_id: str) -> str:
    """The id of the workflow that settles a relayer's finalized events."""
    return f"chain-settlement:{relayer_id}"


def backfill_workflow_id(job_id: UUID) -> str:
    """The id of the workflow that carries one backfill job; also what events and audit call the job."""
    return f"backfill:{job_id}"


def webhook_workflow_id(subscription_id: UUID) -> str:
    """The id of the workflow that works an endpoint's deliveries off; also what events and audit call the endpoint."""
    return f"webhook:{subscription_id}"


def is_user_id(text: str) -> bool:
    """Whether ``text`` may name a tenant's user.

    User ids are opaque: 1 to 200 characters, not blank, without control characters and lone surrogates (neither can be
    stored or logged faithfully), and not beginning with ``system:``.
    """
    return (
        0 < len(text) <= _MAX_USER_ID_CHARACTERS
        and not text.isspace()
        and not text.startswith(SYSTEM_PREFIX)
        and all(unicodedata.category(character) not in {"Cc", "Cs"} for character in text)
    )
