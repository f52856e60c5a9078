"""Events that touch a user's money start a check of the user's margin account, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.consuming import Consumer, Delivered, TenantEvent
from activities.dispatch import Wake, Waking, deliver_wakes
from db.engine import transaction
from db.margin import accounts

__all__ = ["CONSUMER", "MarginSync", "MarginSyncConsumer"]

#: The name of the cursor.
CONSUMER = "margin-sync"

#: Where events that move money say whose.
_USERS: Final[Mapping[str, tuple[str, ...]]] = {
    "escrow.funded": ("buyer", "seller"),
    "escrow.released": ("buyer", "seller"),
    "escrow.refunded": ("buyer", "seller"),
    "escrow.resolved": ("buyer", "seller"),
    "escrow.expired": ("buyer", "seller"),
    "escrow.cancelled": ("buyer", "seller"),
    "ledger.deposited": ("account",),
    "ledger.withdrawn": ("account",),
    "ledger.reversed": ("account",),
    "ledger.transferred": ("account", "counterparty"),
    "transfer.pending": ("from", "to"),
    "transfer.posted": ("from", "to"),
    "transfer.voided": ("from", "to"),
    "transfer.expired": ("from", "to"),
    "command.settled": ("account_ref", "counterparty_ref"),
}

#: A tenant has decided anew whose collateral the money in escrows is.
_SETTINGS_SET: Final = "margin.settings_set"
#: How many accounts a new setting has looked at; the others follow at their next check.
ACCOUNTS_MAX: Final = 20_000


class MarginSync:
    """A consumer's handler. ``engine`` sees every tenant; ``wake_for`` says which check an event starts for a user.

    Many events of one user in a page are one check, under an id from the last of them.
    """

    def __init__(self, engine: AsyncEngine, waking: Waking, wake_for: Callable[[TenantEvent, str], Wake]) -> None:
        self._engine = engine
        self._waking = waking
        self._wake_for = wake_for

    @property
    def types(self) -> Sequence[str]:
        """What moves money, or changes whose collateral it is."""
        return (*_USERS, _SETTINGS_SET)

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        """Start the checks of a page. An absence leaves the whole page for the next attempt."""
        last: dict[tuple[UUID, str], TenantEvent] = {}
        for event in events:
            for name in _USERS.get(event.type, ()):
                if user := event.data.get(name):
                    last[event.tenant_id, user] = event
        decided = {event.tenant_id: event for event in events if event.type == _SETTINGS_SET}
        if not (last or decided):
            return Delivered(upto)
        async with transaction(self._engine) as connection:
            found = await accounts.touched(connection, list(last))
            for tenant, event in decided.items():
                for user in await accounts.in_escrows(connection, tenant, limit=ACCOUNTS_MAX):
                    last[tenant, user] = event
                    found.add((tenant, user))
        wakes = [(self._wake_for(last[key], key[1]), [last[key]]) for key in sorted(found)]
        return Delivered(upto, await deliver_wakes(self._waking, wakes))

    async def close(self) -> None:
        """Nothing is held."""


class MarginSyncConsumer(Consumer):
    """The consumer of ``MarginSync``: while nobody has a margin account, a page costs it one look into an index.

    Whether anybody has one is asked for each page anew: an account that is opened before an event commits is there when
    the event's page is read, and one that is opened later was looked at in the act.
    """

    async def read(self, connection: AsyncConnection, *, after: int, upto: int, limit: int) -> list[TenantEvent]:
        """Nothing while there are no accounts."""
        if not await accounts.any_at_all(connection):
            return []
        return await super().read(connection, after=after, upto=upto, limit=limit)
