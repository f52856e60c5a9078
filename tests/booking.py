"""A margin book in a database of its own: accounts and prices written as their owners would, and the book's steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.book.audit import BookAuditActivities
from activities.book.messages import BookAudit, Revalued, RevalueGroup
from activities.book.steps import BookActivities
from db import migrate
from db.doorbell import Doorbell
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from tools.local.postgres import EmbeddedPostgres

_TEMPLATE = "book_template"
SCALES = {"BTC": 8, "DAI": 18, "ETH": 18, "USDC": 6, "USDT": 6}


@dataclass
class Booking:
    """``engine`` sees every tenant. ``book`` is a process's steps; make another for another process."""

    url: str
    tenants: AsyncEngine
    engine: AsyncEngine
    tenant: UUID
    book: BookActivities

    def process(self, **changes: Any) -> BookActivities:
        """The steps of another process."""
        return BookActivities(self.engine, Doorbell(self.engine), **changes)

    async def price(self, *, confirmed: bool = True, **dollars: str) -> int:
        """A tick with these prices; the others stay."""
        async with transaction(self.engine) as connection:
            tick = await connection.scalar(
                text(
                    "INSERT INTO price_ticks (refresh_id, refreshed_at) VALUES (:id, clock_timestamp()) RETURNING tick"
                ),
                {"id": str(new_id())},
            )
            for symbol, price in dollars.items():
                await connection.execute(
                    text(
                        "INSERT INTO prices (asset, tick, mid, low, high, quality, confirmed, as_of, sources,"
                        " refreshed_at, fresh_until, ttl_seconds) SELECT :asset, :tick, p, p, p, 'good', :confirmed,"
                        " clock_timestamp(), '[]', clock_timestamp(), clock_timestamp() + interval '1 day', 5"
                        " FROM (SELECT CAST(:price AS numeric) AS p) AS said"
                        " ON CONFLICT (asset) DO UPDATE SET tick = excluded.tick, mid = excluded.mid,"
                        " low = excluded.low, high = excluded.high, confirmed = excluded.confirmed,"
                        " fresh_until = excluded.fresh_until"
                    ),
                    {"asset": symbol, "tick": tick, "price": price, "confirmed": confirmed},
                )
        assert tick is not None
        return int(tick)

    async def account(
        self,
        user: str,
        collateral: Mapping[str, str],
        borrow: Mapping[str, str],
        *,
        tenant: UUID | None = None,
        **fields: Any,
    ) -> None:
        """An account with its positions in whole units; ``fields`` are columns of its own."""
        async with transaction(self.engine) as connection:
            await self.open(connection, user, collateral, borrow, tenant=tenant, **fields)

    async def open(
        self,
        connection: AsyncConnection,
        user: str,
        collateral: Mapping[str, str],
        borrow: Mapping[str, str],
        *,
        tenant: UUID | None = None,
        **fields: Any,
    ) -> None:
        """The same in the caller's transaction."""
        whose = tenant or self.tenant
        await connection.execute(
            text("INSERT INTO margin_accounts (tenant_id, user_id) VALUES (:tenant, :user)"),
            {"tenant": whose, "user": user},
        )
        for name, value in fields.items():
            await connection.execute(
                text(f"UPDATE margin_accounts SET {name} = :value WHERE tenant_id = :tenant AND user_id = :user"),
                {"value": value, "tenant": whose, "user": user},
            )
        for side, amounts in (("collateral", collateral), ("borrow", borrow)):
            for asset, amount in amounts.items():
                await connection.execute(
                    text(
                        "INSERT INTO margin_positions (tenant_id, account_no, side, asset, origin, amount_minor)"
                        " SELECT tenant_id, account_no, :side, :asset, 'declared', trunc(CAST(:amount AS numeric)"
                        " * ('1e' || :scale)::numeric) FROM margin_accounts WHERE tenant_id = :tenant"
                        " AND user_id = :user"
                    ),
                    {
                        "side": side,
                        "asset": asset,
                        "amount": amount,
                        "scale": str(SCALES[asset]),
                        "tenant": whose,
                        "user": user,
                    },
                )

    async def revalue(self, book: BookActivities | None = None) -> list[Revalued]:
        """A round, as the workflow has it: every group at once."""
        book = book or self.book
        environment = ActivityEnvironment()
        plan = await environment.run(book.plan)
        return list(
            await asyncio.gather(
                *(ActivityEnvironment().run(book.revalue, RevalueGroup(shards=group)) for group in plan.groups)
            )
        )

    async def audit(self, *, page: int = 1_000) -> BookAudit:
        """A look of the auditor."""
        auditor = BookAuditActivities(self.engine, Doorbell(self.engine), page=page, second_look_seconds=0)
        return await ActivityEnvironment().run(auditor.audit)

    async def sql(self, query: str, **parameters: Any) -> list[Any]:
        """Rows as the role sees them that sees every tenant."""
        async with transaction(self.engine) as connection:
            done = await connection.execute(text(query), parameters)
            return list(done.all()) if done.returns_rows else []

    async def told(self) -> dict[str, int]:
        """What every user was told last."""
        rows = await self.sql("SELECT user_id, told_level FROM margin_accounts ORDER BY user_id")
        return {row.user_id: row.told_level for row in rows}

    async def events(self) -> list[tuple[str, str]]:
        """Whom was told what, in order; row and outbox agree."""
        rows = await self.sql(
            "SELECT e.user_id, e.event_type, o.subject, o.type, o.data ->> 'snapshot_id' AS snapshot, e.snapshot_id"
            " FROM margin_events e FULL JOIN (SELECT * FROM outbox WHERE topic = 'margin.events.v1') AS o"
            " USING (tenant_id, event_id) JOIN margin_health_snapshots s USING (tenant_id, snapshot_id)"
            " ORDER BY e.created_at, e.event_id"
        )
        assert all(row.subject == f"margin:{row.user_id}" and row.type == row.event_type for row in rows)
        assert all(row.snapshot == str(row.snapshot_id) for row in rows)
        return [(row.user_id, row.event_type) for row in rows]


def _create(postgres: EmbeddedPostgres, name: str) -> None:
    """A migrated database, copied from one that is migrated once a run."""
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
            migrate.upgrade(postgres.url_of(_TEMPLATE))
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(made.format(sql.Identifier(name), sql.Identifier(_TEMPLATE)))


@asynccontextmanager
async def booking(postgres: EmbeddedPostgres) -> AsyncIterator[Booking]:
    """A fresh database with a tenant and a price for every asset."""
    name = f"book_{new_id().hex}"
    await asyncio.to_thread(_create, postgres, name)
    url = postgres.url_of(name)
    tenants, engine = create_engine(url, Role.APP, pool_size=4), create_engine(url, Role.ENGINE, pool_size=8)
    made = Booking(url, tenants, engine, new_id(), BookActivities(engine, Doorbell(engine)))
    try:
        async with transaction(tenants) as opened:
            assert await create_tenant(opened, new_tenant=made.tenant, name="book")
        await made.price(BTC="60000", DAI="1", ETH="3000", USDC="1", USDT="1")
        yield made
    finally:
        await tenants.dispose()
        await engine.dispose()
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
