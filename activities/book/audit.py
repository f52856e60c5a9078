"""The auditor's step: pages of accounts recomputed by Postgres; what stays wrong at a second look is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.book.messages import AuditProgress, BookAudit
from db import audit, outbox
from db.doorbell import Doorbell
from db.engine import transaction
from db.ids import new_id
from db.margin import auditing
from db.margin.auditing import Disagreement
from domain.margin.model import Level
from domain.margin.rows import subject_of
from kit.clock import now

#: Account numbers of one statement.
PAGE: Final = 20_000
#: A check or a revaluation that is just being written is done by then.
SECOND_LOOK_SECONDS: Final = 5.0
DISAGREED: Final = "margin.audit_disagreed"

_log = logging.getLogger(__name__)
_checked = Counter("holdfast_book_audited_total", "Accounts that the auditor recomputed")
_wrong = Counter("holdfast_book_audit_disagreed_total", "Accounts found to have been told wrong")
_standing = Gauge("holdfast_book_audit_disagreeing", "Accounts told wrong at the last look of the auditor")


class BookAuditActivities:
    """``engine`` sees every tenant; ``doorbell`` wakes the relay."""

    def __init__(
        self,
        engine: AsyncEngine,
        doorbell: Doorbell,
        *,
        page: int = PAGE,
        second_look_seconds: float = SECOND_LOOK_SECONDS,
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._page = page
        self._second_look_seconds = second_look_seconds

    @activity.defn(name="book.audit")
    async def audit(self) -> BookAudit:
        """Look at every account once, page by page, from where the last attempt's heartbeat left off."""
        details = activity.info().heartbeat_details
        progress = AuditProgress.model_validate(details[0]) if details else AuditProgress()
        async with transaction(self._engine) as connection:
            last = await auditing.last_account(connection)
        while progress.after < last:
            upto = min(progress.after + self._page, last)
            wrong = await self._look(progress.after, upto)
            _checked.inc(upto - progress.after)
            progress = AuditProgress(
                after=upto,
                accounts=progress.accounts + upto - progress.after,
                disagreeing=progress.disagreeing + len(wrong),
            )
            activity.heartbeat(progress)
        _standing.set(progress.disagreeing)
        return BookAudit(accounts=progress.accounts, disagreeing=progress.disagreeing)

    async def _look(self, after: int, upto: int) -> Sequence[Disagreement]:
        async with transaction(self._engine) as connection:
            suspects = await auditing.disagreeing(connection, after=after, upto=upto)
        if not suspects:
            return ()
        await asyncio.sleep(self._second_look_seconds)
        before = {suspect.account: suspect.version for suspect in suspects}
        async with transaction(self._engine) as connection:
            again = await auditing.disagreeing(connection, after=after, upto=upto, accounts=list(before))
        wrong = [found for found in again if found.version == before[found.account]]
        for found in wrong:
            await self._tell(found)
        return wrong

    async def _tell(self, found: Disagreement) -> None:
        """Keep a row, and tell the tenant: once for a version of the account."""
        finding_id, at = new_id(), now()
        told, strict, rearmed = (Level(level).name for level in (found.told, found.strict, found.rearmed))
        async with transaction(self._engine) as connection:
            if await auditing.keep(connection, finding_id, found) is None:
                return
            details = {
                "user_id": found.user_id,
                "told_level": told,
                "strict_level": strict,
                "rearmed_level": rearmed,
                "price_tick": found.tick,
                "parameter_version": found.parameters,
            }
            event = outbox.OutboxEvent(
                finding_id, outbox.MARGIN_TOPIC, DISAGREED, subject_of(found.user_id), at, details
            )
            await outbox.append(connection, found.tenant_id, [event])
            origin = audit.Origin(workflow_id=activity.info().workflow_id)
            record = audit.AuditRecord(event.subject, DISAGREED, at, origin, details)
            await audit.write(connection, found.tenant_id, record)
        _wrong.inc()
        _log.error(
            "a margin account was told %s, but its health is %s",
            told,
            strict,
            extra={"tenant_id": str(found.tenant_id), "user_id": found.user_id, "finding_id": str(finding_id)},
        )
        self._doorbell.ring()
