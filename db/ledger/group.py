"""Group commit: what waits when a commit returns goes into the next one, and each caller gets its own answer.

A commit costs the same for one posting as for hundreds. Nobody waits for company: a posting that meets an idle ledger
is written at once, and those that come meanwhile go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ledger.posting import open_book
from db.step import Left, leave, receipts_of
from domain.errors import Refusal, Unavailable
from domain.ledger import Posting

#: So many go into one commit at most; the others go into the next.
ENTRIES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One caller's step: a chain of postings, booked whole or not at all, and what it leaves beside them."""

    postings: Sequence[Posting]
    left: Left


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    answer: asyncio.Future[Mapping[str, Any]]


class PostingGroup:
    """Groups the postings of a process, one group a tenant, each with one commit in flight."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell, *, entries_max: int = ENTRIES_MAX) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._entries_max = entries_max
        self._waiting: dict[UUID, list[_Waiting]] = {}
        self._drains: set[asyncio.Task[None]] = set()

    async def post(self, tenant_id: UUID, entry: Entry) -> Mapping[str, Any]:
        """Have the entry committed with whatever else waits; answers its result, or that of its first attempt.

        Raises this entry's ``Refusal`` (then nothing of it is written), or ``Unavailable``: then it is not known
        whether it was, and the same step is to be tried again.
        """
        waiting = _Waiting(entry, asyncio.get_running_loop().create_future())
        if tenant_id in self._waiting:
            self._waiting[tenant_id].append(waiting)
        else:
            self._waiting[tenant_id] = [waiting]
            drain = asyncio.create_task(self._drain(tenant_id))
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)
        return await waiting.answer

    async def _drain(self, tenant_id: UUID) -> None:
        """Commit until nobody waits. Exists as long as the tenant's list does."""
        while waiting := self._waiting[tenant_id]:
            group, rest = _next_group(waiting, self._entries_max)
            self._waiting[tenant_id] = rest
            if group:
                await self._answer(tenant_id, group)
        del self._waiting[tenant_id]

    async def _answer(self, tenant_id: UUID, group: list[_Waiting]) -> None:
        """Commit a group and tell each caller what became of it; one that breaks the statement is found by itself."""
        try:
            answers = await self._commit(tenant_id, [waiting.entry for waiting in group])
        except Unavailable as error:
            for waiting in group:
                _fail(waiting, Unavailable(error.what, error.message))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller at fault gets it
            if len(group) == 1:
                _fail(group[0], error)
                return
            for waiting in group:
                await self._answer(tenant_id, [waiting])
        else:
            for waiting, answer in zip(group, answers, strict=True):
                if isinstance(answer, Refusal):
                    _fail(waiting, answer)
                elif not waiting.answer.done():
                    waiting.answer.set_result(answer)

    async def _commit(self, tenant_id: UUID, entries: Sequence[Entry]) -> list[Mapping[str, Any] | Refusal]:
        async with tenant_transaction(self._engine, tenant_id) as connection:
            book = await open_book(connection, tenant_id, [entry.postings for entry in entries])
            # Behind the locks: another attempt of a step locks the same accounts, so its receipt is seen here.
            done = await receipts_of(connection, tenant_id, [entry.left.step_id for entry in entries])
            fresh = [entry for entry in entries if entry.left.step_id not in done]
            refusals = await book.post_each([entry.postings for entry in fresh])
            booked = [entry.left for entry, refusal in zip(fresh, refusals, strict=True) if refusal is None]
            if booked:
                await leave(connection, tenant_id, booked)
        if any(left.events for left in booked):
            self._doorbell.ring()
        refused = {
            entry.left.step_id: refusal for entry, refusal in zip(fresh, refusals, strict=True) if refusal is not None
        }
        return [refused.get(entry.left.step_id) or done.get(entry.left.step_id, entry.left.result) for entry in entries]


def _next_group(waiting: Sequence[_Waiting], most: int) -> tuple[list[_Waiting], list[_Waiting]]:
    """The first ``most``, no step twice: a repeated one waits for its own answer. And those who wait on."""
    group: list[_Waiting] = []
    rest: list[_Waiting] = []
    seen: set[str] = set()
    for each in waiting:
        if each.answer.cancelled():
            continue
        step_id = each.entry.left.step_id
        if len(group) < most and step_id not in seen:
            group.append(each)
            seen.add(step_id)
        else:
            rest.append(each)
    return group, rest


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
