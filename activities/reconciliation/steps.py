"""The steps of reconciliation: begin, compare area by area in bounded pages, finish, and clear away old sums."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.reconciliation.messages import (
    AreaCompared,
    BeginReconciliation,
    CompareArea,
    FinishReconciliation,
    Progress,
    ReconcileTenant,
    ReconciliationOutcome,
    ReconciliationPlan,
    TenantsWanted,
)
from activities.reconciliation.report import finished_audit, finished_events, outcome_of, started_audit
from db.doorbell import Doorbell
from db.engine import tenant_transaction, transaction
from db.reconciliation import agreements, figures, runs, sums
from db.reconciliation.figures import Cursor, Page
from db.step import step
from domain import reconciliation as rules
from domain.errors import Unavailable
from domain.ids import reconciliation_workflow_id
from domain.reconciliation import Finding, share_text

#: Closed escrows that were not touched for so long are compared by full runs only.
LOOK_BACK = timedelta(days=1)
SETTLE_SECONDS, SETTLE_PAUSE_SECONDS = 60.0, 0.05
#: Unexplained differences that one run tells of; what is left is told by the next.
TOLD_MAX = 100

_log = logging.getLogger(__name__)
_checked = Counter("holdfast_reconciliation_checked_total", "Subjects that were compared", ["area"])
_differs = Counter("holdfast_reconciliation_findings_total", "Subjects that differ, by run", ["area", "explained"])

#: How many subjects a page compared, the key of the last one (None: there are no more), and what differs.
Judged: TypeAlias = tuple[int, str | None, list[Finding]]
Judge: TypeAlias = Callable[[CompareArea, AsyncConnection, str], Awaitable[Judged]]


@dataclass(frozen=True, slots=True)
class PageSizes:
    """How much one statement takes on; each stays far below the database's statement limit.

    More new transactions than ``tail`` are added to the book before balances are compared with it.
    """

    ledger: int = 5_000
    keys: int = 2_000
    escrows: int = 200
    deleted: int = 20_000
    tail: int = 5_000


class ReconciliationActivities:
    """``tenants`` acts under row-level security, ``engine`` sees every tenant; ``doorbell`` wakes the relay."""

    def __init__(
        self, tenants: AsyncEngine, engine: AsyncEngine, doorbell: Doorbell, sizes: PageSizes = PageSizes()
    ) -> None:
        self._tenants = tenants
        self._engine = engine
        self._doorbell = doorbell
        self._sizes = sizes
        #: What is compared, in this order; the ledger first, for balances are compared with its sums.
        self._areas: dict[str, Judge] = {
            "accounts": self._accounts,
            "holds": self._holds,
            "escrows": self._escrows,
            "transfers": self._transfers,
            "commands": self._commands,
            "assets": self._assets,
        }

    @activity.defn(name="reconciliation.tenants")
    async def tenants(self, wanted: TenantsWanted) -> list[UUID]:
        """The next tenants that have accounts, by id."""
        async with transaction(self._engine) as connection:
            return await runs.list_tenants(connection, after=wanted.after, limit=wanted.limit)

    @activity.defn(name="reconciliation.begin")
    async def begin(self, asked: BeginReconciliation) -> ReconciliationPlan:
        """Write that a run began, and answer what it compares. Without a book of sums yet, it reads everything."""
        request = asked.request
        workflow_id = reconciliation_workflow_id(request.tenant_id, request.run_id)
        async with step(
            self._tenants, self._doorbell, tenant_id=request.tenant_id, step_id=f"{workflow_id}:begin"
        ) as opened:
            if opened.receipt is not None:
                return ReconciliationPlan.model_validate(opened.receipt)
            connection, tenant, run_id = opened.connection, request.tenant_id, request.run_id
            standing = None if request.full else await sums.find_base(connection, tenant, None)
            await runs.begin_run(connection, tenant, run_id, is_full=standing is None, at=asked.at)
            if standing is None:
                await sums.begin_base(connection, tenant, run_id)
            plan = ReconciliationPlan(
                areas=("ledger", *self._areas),
                began_at=asked.at,
                full=standing is None,
                after_sequence=0 if standing is None else standing.through_sequence,
                since=None if standing is None else asked.at - LOOK_BACK,
            )
            await opened.finish(
                result=plan.model_dump(mode="json"),
                audit=started_audit(run_id, plan, asked.at, request.origin.to_origin(workflow_id)),
                events=(),
            )
            return plan

    @activity.defn(name="reconciliation.compare")
    async def compare(self, asked: CompareArea) -> AreaCompared:
        """Compare one area to its end, page by page, from where the last attempt's heartbeat left off."""
        progress = _last_progress()
        if asked.area == "ledger":
            return AreaCompared(area=asked.area, checked=await self._add_up(asked, progress, activity.heartbeat))
        judge = self._areas[asked.area]
        request = asked.request
        while True:
            if asked.area in {"accounts", "holds"}:
                await self._keep_up(asked, progress)
            async with tenant_transaction(self._tenants, request.tenant_id) as connection:
                checked, last, findings = await judge(asked, connection, progress.after)
                await runs.record(connection, request.tenant_id, request.run_id, asked.area, findings)
            _checked.labels(asked.area).inc(checked)
            progress = Progress(after=last or "", checked=progress.checked + checked)
            activity.heartbeat(progress)
            if last is None:
                return AreaCompared(area=asked.area, checked=progress.checked)

    @activity.defn(name="reconciliation.finish")
    async def finish(self, asked: FinishReconciliation) -> ReconciliationOutcome:
        """Write what came of a run: figures, audit, events; what it did not find again is resolved."""
        request = asked.request
        tenant, run_id = request.tenant_id, request.run_id
        workflow_id = reconciliation_workflow_id(tenant, run_id)
        async with step(self._tenants, self._doorbell, tenant_id=tenant, step_id=f"{workflow_id}:finish") as opened:
            if opened.receipt is not None:
                return ReconciliationOutcome.model_validate(opened.receipt)
            connection = opened.connection
            found = await runs.count_findings(connection, tenant, run_id)
            outcome = outcome_of(asked.compared, found)
            untold: list[runs.StandingFinding] = []
            if asked.failure is None:
                base = await sums.find_base(connection, tenant, _own(request, asked.plan))
                through = None if base is None else base.through_sequence
                await runs.finish_run(connection, tenant, run_id, outcome, through_sequence=through, at=asked.at)
                if asked.plan.full:
                    await sums.complete_base(connection, tenant, run_id)
                untold = await runs.take_untold(connection, tenant, run_id, limit=TOLD_MAX)
            else:
                await runs.fail_run(connection, tenant, run_id, asked.failure, at=asked.at)
            answer = ReconciliationOutcome(
                run_id=run_id,
                checked=outcome.checked,
                explained=outcome.explained,
                unexplained=outcome.unexplained,
                share_explained=share_text(outcome.share_explained_ppm),
            )
            origin = request.origin.to_origin(workflow_id)
            scales = await runs.scales(connection)
            await opened.finish(
                result=answer.model_dump(mode="json"),
                audit=finished_audit(asked, outcome, origin),
                events=finished_events(asked, outcome, untold, scales),
            )
        _tell(found, untold)
        return answer

    @activity.defn(name="reconciliation.clear")
    async def clear(self, request: ReconcileTenant) -> int:
        """Delete the sums that a newer book replaced, in bounded batches; returns how many."""
        total = 0
        while True:
            async with transaction(self._engine) as connection:
                deleted = await sums.delete_replaced(connection, request.tenant_id, limit=self._sizes.deleted)
            total += deleted
            activity.heartbeat(total)
            if deleted < self._sizes.deleted:
                return total

    async def _add_up(self, asked: CompareArea, progress: Progress, beat: Callable[[Progress], None]) -> int:
        """Add what is settled to the book, to the number that was the highest at the start."""
        tenant, own = asked.request.tenant_id, _own(asked.request, asked.plan)
        upto = await self._settled(tenant, lambda: beat(progress))
        after = int(progress.after or asked.plan.after_sequence)
        checked = progress.checked
        while True:
            async with tenant_transaction(self._tenants, tenant) as connection:
                base = await sums.find_base(connection, tenant, own, lock=True)
                if base is None:
                    raise figures.BaseMissing(f"tenant {tenant}, run {asked.request.run_id}")
                if base.through_sequence > after:
                    # An attempt that died after its commit, or another run on this book, added these.
                    checked += await sums.count_between(connection, tenant, after, base.through_sequence)
                added = await sums.add_page(connection, tenant, base, upto=upto, limit=self._sizes.ledger)
                findings = [found for each in added.wrong for found in rules.compare_transaction(each)]
                await runs.record(connection, tenant, asked.request.run_id, "ledger", findings)
            after, checked = added.through_sequence, checked + added.checked
            _checked.labels("ledger").inc(added.checked)
            beat(Progress(after=str(after), checked=checked))
            if added.checked < self._sizes.ledger:
                return checked

    async def _keep_up(self, asked: CompareArea, progress: Progress) -> None:
        """Bring the book up to date when too much was posted since, so that comparing stays a small statement.

        The heartbeat keeps telling how far the area is, not how far the book is.
        """
        tenant, own = asked.request.tenant_id, _own(asked.request, asked.plan)
        async with tenant_transaction(self._tenants, tenant) as connection:
            base = await sums.find_base(connection, tenant, own)
            tail = 0 if base is None else await sums.tail_length(connection, tenant, base, limit=self._sizes.tail + 1)
        if base is not None and tail > self._sizes.tail:
            behind = Progress(after=str(base.through_sequence))
            await self._add_up(asked, behind, lambda _: activity.heartbeat(progress))

    async def _settled(self, tenant: UUID, beat: Callable[[], None]) -> int:
        """The highest number in sight, once nothing below it can still appear; ``beat`` is called while it waits."""
        async with tenant_transaction(self._tenants, tenant) as connection:
            highest, mark = await sums.tip(connection, tenant)
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    async with tenant_transaction(self._tenants, tenant) as connection:
                        if await sums.is_settled(connection, mark):
                            return highest
                    beat()
                    await asyncio.sleep(SETTLE_PAUSE_SECONDS)
        except TimeoutError:
            raise Unavailable("postgres", f"a transaction was open for {SETTLE_SECONDS} s") from None

    async def _accounts(self, asked: CompareArea, connection: AsyncConnection, after: str) -> Judged:
        own, at = _own(asked.request, asked.plan), Cursor(after, asked.plan.began_at, self._sizes.keys)
        page = await figures.accounts_page(connection, asked.request.tenant_id, own, at)
        return _judged(page, (rules.compare_account(each) for each in page.found))

    async def _holds(self, asked: CompareArea, connection: AsyncConnection, after: str) -> Judged:
        own, at = _own(asked.request, asked.plan), Cursor(after, asked.plan.began_at, self._sizes.keys)
        page = await figures.holds_page(connection, asked.request.tenant_id, own, at)
        return _judged(page, (rules.compare_hold(each) for each in page.found))

    async def _escrows(self, asked: CompareArea, connection: AsyncConnection, after: str) -> Judged:
        since, at = asked.plan.since, Cursor(after, asked.plan.began_at, self._sizes.escrows)
        page = await agreements.escrows_page(connection, asked.request.tenant_id, since, at)
        return _judged(page, (rules.compare_escrow(each, page.clock) for each in page.found))

    async def _transfers(self, asked: CompareArea, connection: AsyncConnection, after: str) -> Judged:
        at = Cursor(after, asked.plan.began_at, self._sizes.keys)
        page = await agreements.transfers_page(connection, asked.request.tenant_id, at)
        return _judged(page, (rules.compare_transfer(each, page.clock) for each in page.found))

    async def _commands(self, asked: CompareArea, connection: AsyncConnection, after: str) -> Judged:
        since, at = asked.plan.since, Cursor(after, asked.plan.began_at, self._sizes.keys)
        page = await agreements.commands_page(connection, asked.request.tenant_id, since, at)
        return _judged(page, (rules.compare_command(each, page.clock) for each in page.found))

    async def _assets(self, asked: CompareArea, connection: AsyncConnection, _: str) -> Judged:
        found = await figures.asset_sums(connection, asked.request.tenant_id)
        return len(found), None, list(rules.compare_trial_balance(found))


def _judged(page: Page[Any], judged: Iterable[Iterable[Finding]]) -> Judged:
    return page.checked, page.last, [finding for findings in judged for finding in findings]


def _own(request: ReconcileTenant, plan: ReconciliationPlan) -> UUID | None:
    """The book that a run compares with: its own when it reads everything, else the one that stands."""
    return request.run_id if plan.full else None


def _last_progress() -> Progress:
    details = activity.info().heartbeat_details
    return Progress.model_validate(details[0]) if details else Progress()


def _tell(found: dict[str, tuple[int, int]], untold: list[runs.StandingFinding]) -> None:
    """After the commit: metrics, and a line for each difference that nobody can explain."""
    for area, (explained, unexplained) in found.items():
        _differs.labels(area, "yes").inc(explained)
        _differs.labels(area, "no").inc(unexplained)
    for each in untold:
        finding = each.finding
        _log.error(
            "the books differ",
            extra={
                "code": finding.code,
                "subject": finding.subject,
                "part": finding.part,
                "asset": finding.asset,
                "expected": str(finding.expected),
                "actual": str(finding.actual),
                "detail": finding.detail,
            },
        )
