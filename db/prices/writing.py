"""Writing prices: one refresh at a time, in the order in which refreshes began."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.prices.queries import list_rows
from domain.prices.model import Anchor, Carried, Jump, Refreshed, Standing, Verdict, price_text

_REFRESH_LOCK = 0x486F6C64_00000009

_SAVE = text(
    """
    INSERT INTO prices (asset, tick, mid, low, high, quality, confirmed, as_of, sources, reason, refreshed_at,
        fresh_until, ttl_seconds, state)
    SELECT asset, tick, mid, low, high, quality, confirmed, as_of, sources, reason, :at, fresh_until, ttl_seconds, state
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (asset text, tick bigint, mid numeric, low numeric, high numeric,
        quality text, confirmed boolean, as_of timestamptz, sources jsonb, reason text, fresh_until timestamptz,
        ttl_seconds int, state jsonb)
    ON CONFLICT (asset) DO UPDATE SET tick = excluded.tick, mid = excluded.mid, low = excluded.low,
        high = excluded.high, quality = excluded.quality, confirmed = excluded.confirmed, as_of = excluded.as_of,
        sources = excluded.sources, reason = excluded.reason, refreshed_at = excluded.refreshed_at,
        fresh_until = excluded.fresh_until, ttl_seconds = excluded.ttl_seconds, state = excluded.state
    """
)

_HISTORY = text(
    """
    INSERT INTO price_history (asset, at, tick, mid, low, high, quality, confirmed, as_of, sources)
    SELECT asset, at, tick, mid, low, high, quality, confirmed, as_of, sources
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (asset text, at timestamptz, tick bigint, mid numeric,
        low numeric, high numeric, quality text, confirmed boolean, as_of timestamptz, sources jsonb)
    ON CONFLICT DO NOTHING
    """
)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a refresh leaves of one asset; ``tick`` is its own when it changed the price, else the one before."""

    refreshed: Refreshed
    tick: int
    ttl_seconds: int


async def begin(connection: AsyncConnection) -> datetime | None:
    """Wait for refreshes under way, keep others waiting until the commit, and answer when the last one began."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _REFRESH_LOCK})
    found: datetime | None = await connection.scalar(text("SELECT max(refreshed_at) FROM prices"))
    return found


async def standing(connection: AsyncConnection) -> Mapping[str, Standing]:
    """The prices that stand, with what the refresh before left for the next."""
    rows = await list_rows(connection)
    states = {row.asset: row.state for row in await connection.execute(text("SELECT asset, state FROM prices"))}
    return {asset: Standing(row.price, _carried(states[asset])) for asset, row in rows.items()}


async def find_tick(connection: AsyncConnection, refresh_id: str) -> int | None:
    """The tick that a refresh made before, None when it made none."""
    query = text("SELECT tick FROM price_ticks WHERE refresh_id = :id")
    found: int | None = await connection.scalar(query, {"id": refresh_id})
    return found


async def assets_of_tick(connection: AsyncConnection, tick: int) -> list[str]:
    """What a tick changed."""
    rows = await connection.execute(
        text(
            "SELECT h.asset FROM price_history h JOIN price_ticks t USING (tick)"
            " WHERE t.tick = :tick AND h.at = t.refreshed_at ORDER BY h.asset"
        ),
        {"tick": tick},
    )
    return list(rows.scalars())


async def make_tick(connection: AsyncConnection, refresh_id: str, at: datetime) -> int:
    """A tick of its own for a refresh that changed some price."""
    made = await connection.scalar(
        text("INSERT INTO price_ticks (refresh_id, refreshed_at) VALUES (:id, :at) RETURNING tick"),
        {"id": refresh_id, "at": at},
    )
    assert made is not None, "an insert returns its row"
    return int(made)


async def save(connection: AsyncConnection, saved: Sequence[Saved], at: datetime) -> None:
    """Write the prices of a refresh that began at ``at``, and the history of those that it changed."""
    rows = [_row(each) for each in saved]
    await connection.execute(_SAVE, {"rows": json.dumps(rows), "at": at})
    changed = [row | {"at": at.isoformat()} for row, each in zip(rows, saved, strict=True) if each.refreshed.changed]
    if changed:
        await ensure_partition(connection, at.date())
        await connection.execute(_HISTORY, {"rows": json.dumps(changed)})


async def import_history(connection: AsyncConnection, rows: Sequence[tuple[str, datetime, int]]) -> int:
    """Add prices of the past (asset, instant, 1e-18 USD) that somebody vouches for, as tick 0; how many are new."""
    imported = [
        {
            "asset": asset,
            "at": at.isoformat(),
            "tick": 0,
            **dict.fromkeys(("mid", "low", "high"), price_text(price)),
            "quality": "good",
            "confirmed": True,
            "as_of": at.isoformat(),
            "sources": [{"source": "import", "left_out": None}],
        }
        for asset, at, price in rows
    ]
    done = await connection.execute(_HISTORY, {"rows": json.dumps(imported)})
    return int(getattr(done, "rowcount", 0))


async def accept(connection: AsyncConnection, asset: str) -> bool:
    """Forget what was confirmed, so that the next price with quorum is; False where there is no such price."""
    done = await connection.execute(
        text("UPDATE prices SET state = '{}' WHERE asset = :asset RETURNING asset"), {"asset": asset}
    )
    return done.one_or_none() is not None


async def ensure_partition(connection: AsyncConnection, month: date) -> bool:
    """Make the partition of a month of history where it is missing; whether it was."""
    return bool(await connection.scalar(text("SELECT ensure_price_partition(:month)"), {"month": month}))


async def has_partition(connection: AsyncConnection, month: date) -> bool:
    """Whether a month of history has its partition."""
    name = f"price_history_{month:%Y%m}"
    return bool(await connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": f"public.{name}"}))


def said(verdict: Verdict) -> dict[str, Any]:
    """What a source said and what became of it, as JSON keeps it: dollars in ``price``, its own unit in ``said``."""
    reading = verdict.reading
    return {
        "source": reading.source,
        "feed": reading.feed,
        "price": price_text(verdict.price) if verdict.price > 0 else None,
        "confidence": price_text(verdict.confidence) if verdict.price > 0 else None,
        "unit": reading.unit,
        "said": price_text(reading.price) if reading.price > 0 else None,
        "observed_at": None if reading.observed_at is None else reading.observed_at.isoformat(),
        "left_out": verdict.left_out,
    }


def _row(each: Saved) -> dict[str, Any]:
    price = each.refreshed.price
    assert price is not None, "an asset without a price has no row"
    until = each.refreshed.fresh_until
    return {
        "asset": price.asset,
        "tick": each.tick,
        "mid": price_text(price.mid),
        "low": price_text(price.low),
        "high": price_text(price.high),
        "quality": price.quality,
        "confirmed": price.confirmed,
        "as_of": price.as_of.isoformat(),
        "sources": [said(verdict) for verdict in each.refreshed.verdicts],
        "reason": price.reason,
        "fresh_until": None if until is None else until.isoformat(),
        "ttl_seconds": each.ttl_seconds,
        "state": _state(each.refreshed.carried),
    }


def _state(carried: Carried) -> dict[str, Any]:
    """What is carried on, as JSON; integers as text."""
    found: dict[str, Any] = {"low": str(carried.low), "high": str(carried.high)}
    if (anchor := carried.anchor) is not None:
        bounds = {"mid": str(anchor.mid), "low": str(anchor.low), "high": str(anchor.high)}
        found["anchor"] = bounds | {"feeds": sorted(anchor.feeds)}
    if (jump := carried.jump) is not None:
        found["jump"] = {"mid": str(jump.mid), "seen": jump.seen, "seen_at": jump.seen_at.isoformat()}
    return found


def _carried(state: Mapping[str, Any]) -> Carried:
    anchor, jump = state.get("anchor"), state.get("jump")
    return Carried(
        anchor=None
        if anchor is None
        else Anchor(int(anchor["mid"]), int(anchor["low"]), int(anchor["high"]), frozenset(anchor["feeds"])),
        jump=None
        if jump is None
        else Jump(int(jump["mid"]), int(jump["seen"]), datetime.fromisoformat(jump["seen_at"])),
        low=int(state.get("low", 0)),
        high=int(state.get("high", 0)),
    )
