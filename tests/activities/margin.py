"""A tenant's margin checks, called as a worker calls them, but without Temporal."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.margin.messages import Cause, CheckMargin, CheckOutcome, LevelsMessage, PositionMessage, RecordCheck
from activities.margin.steps import MarginActivities
from activities.messages import OriginMessage
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.margin import accounts, reports
from db.margin.accounts import MarginAccount
from db.margin.reports import EventFilter, MarginEvent, Snapshot
from domain.margin.model import Position, Side
from kit.clock import now

SCALES = {"ETH": 18, "BTC": 8, "USDC": 6, "USDT": 6, "DAI": 18}
USER = "alice"
MINUTE = timedelta(minutes=1)
#: Where a check leaves something.
TABLES = (
    "margin_accounts",
    "margin_positions",
    "margin_health_snapshots",
    "margin_events",
    "audit_log",
    "outbox",
    "receipts",
)


def owns(asset: str, units: str | int) -> PositionMessage:
    return PositionMessage(side=Side.COLLATERAL, asset=asset, amount_minor=_minor(asset, units))


def owes(asset: str, units: str | int) -> PositionMessage:
    return PositionMessage(side=Side.BORROW, asset=asset, amount_minor=_minor(asset, units))


def _minor(asset: str, units: str | int) -> int:
    return int(Fraction(units) * 10 ** SCALES.get(asset, 0))


class Checks:
    """One tenant's margin checks, and what they left behind."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant
        self.activities = MarginActivities(engine, Doorbell(engine))
        self.at = now()

    async def check(
        self,
        *positions: PositionMessage,
        user: str = USER,
        minute: float | None = None,
        check_id: UUID | None = None,
        cause: Cause = Cause.CHECK,
        levels: tuple[int, int, int] | None = None,
        stored: bool = False,
    ) -> CheckOutcome:
        """Look at an account with these positions, or with those that it has (``stored``)."""
        wanted = None
        if levels is not None:
            wanted = LevelsMessage(warning_bps=levels[0], margin_call_bps=levels[1], imminent_bps=levels[2])
        request = CheckMargin(
            tenant_id=self.tenant,
            check_id=check_id or new_id(),
            user_id=user,
            cause=cause,
            positions=None if stored else positions,
            levels=wanted,
            origin=OriginMessage(user_id="operator", request_id="test"),
        )
        at = self.at if minute is None else self.at + minute * MINUTE
        return await self.record(RecordCheck(request=request, at=at))

    async def record(self, asked: RecordCheck) -> CheckOutcome:
        """The step itself."""
        return CheckOutcome.model_validate(await ActivityEnvironment().run(self.activities.check, asked))

    async def account(self, user: str = USER) -> MarginAccount:
        """The account as Postgres has it."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await accounts.find(connection, self.tenant, user)
        assert found is not None
        return found

    async def positions(self, user: str = USER) -> list[Position]:
        """The account's positions."""
        account = await self.account(user)
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await accounts.positions(connection, self.tenant, account)

    async def snapshots(self, user: str = USER) -> list[Snapshot]:
        """The account's snapshots, newest first."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await reports.list_snapshots(connection, user, limit=100)

    async def events(self, user: str | None = USER) -> list[MarginEvent]:
        """The events, newest first."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await reports.list_events(connection, EventFilter(user=user), limit=100)

    async def sql(self, query: str, **parameters: Any) -> list[Any]:
        """Rows as the tenant's role sees them."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return list((await connection.execute(text(query), parameters)).all())

    async def written(self) -> dict[str, int]:
        """How many rows the tenant has, by table; without those of alerts, where a worker is there to make them."""
        alerts = {
            "audit_log": "WHERE subject NOT LIKE 'alert:%'",
            "outbox": "WHERE subject NOT LIKE 'alert:%'",
            "receipts": "WHERE step_id NOT LIKE 'alert:%'",
        }
        queries = {table: f"SELECT count(*) FROM {table} {alerts.get(table, '')}" for table in TABLES}
        return {table: int((await self.sql(query))[0][0]) for table, query in queries.items()}
