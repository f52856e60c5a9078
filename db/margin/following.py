"""How the book reads accounts: all of some shards, or those that changed; in binary, with fields of fixed width.

A read is one snapshot. Whoever reads next asks for accounts whose ``changed_in`` is at or above the snapshot's lowest
transaction id that was still open: what this read could not see was written by such a transaction, whenever it commits.
What is read twice has the same version.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Groups of four decimal digits that a number is read with; larger ones are cut, and told by their weight.
DIGIT_GROUPS: Final = 8
#: Postgres' binary numeric: four fields of two bytes, then the digit groups.
NUMBER_BYTES: Final = 8 + 2 * DIGIT_GROUPS

_COPY_SECONDS: Final = 300
_STEADY = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
#: The hash of a group's accounts stays in memory; the scan of all positions may take longer than other statements do.
_ROOM = text(
    "SELECT set_config('work_mem', '128MB', true), set_config('statement_timeout', '300s', true),"
    " set_config('idle_in_transaction_session_timeout', '300s', true)"
)
_SNAPSHOT = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
_HORIZON = text("SELECT pg_current_xact_id()::text::bigint")
_SYMBOLS = text("SELECT symbol FROM assets ORDER BY symbol")

_CHANGED = """
SELECT account_no, version FROM margin_accounts WHERE changed_in >= {since} AND shard = ANY ('{{{shards}}}')
"""

_HEADS = """
SELECT account_no, tenant_id, warning_bps, margin_call_bps, imminent_bps, told_level,
    coalesce(warning_told_at, '-infinity'), coalesce(margin_call_told_at, '-infinity'),
    coalesce(imminent_told_at, '-infinity'), coalesce(liquidation_told_at, '-infinity'), version,
    {health}
FROM margin_accounts WHERE {which} ORDER BY account_no
"""

_USERS = "SELECT user_id FROM margin_accounts WHERE {which} ORDER BY account_no"

_POSITIONS = """
SELECT p.account_no,
    (1 + (array_position('{{{symbols}}}'::text[], p.asset) - 1) * 3
        + CASE WHEN p.side = 'borrow' THEN 2 WHEN p.origin = 'escrow' THEN 1 ELSE 0 END)::smallint,
    {amount}
FROM margin_positions p JOIN margin_accounts a USING (account_no) WHERE {which}
"""

_ODD_HEADS = text(
    """
    SELECT account_no, tenant_id, user_id, warning_bps, margin_call_bps, imminent_bps, told_level, version,
        trunc(health_score * 1000000000000000000) AS health,
        ARRAY(
            SELECT CASE WHEN told_at IS NULL THEN NULL
                ELSE (extract(epoch FROM told_at) * 1000000)::bigint - 946684800000000 END
            FROM unnest(ARRAY[warning_told_at, margin_call_told_at, imminent_told_at, liquidation_told_at])
                WITH ORDINALITY AS t (told_at, n) ORDER BY n
        ) AS told_at
    FROM margin_accounts WHERE account_no = ANY (CAST(:accounts AS bigint[]))
    """
)
_ODD_POSITIONS = text(
    "SELECT account_no, side, asset, origin, amount_minor FROM margin_positions p JOIN margin_accounts a"
    " USING (tenant_id, account_no) WHERE account_no = ANY (CAST(:accounts AS bigint[]))"
    " ORDER BY account_no, side DESC, asset, origin"
)


class Binary(NamedTuple):
    """What was read, as COPY sends it: heads and positions in binary, users as text, all but positions by number."""

    heads: bytes
    users: bytes
    positions: bytes


class OddPosition(NamedTuple):
    """A position of an account that fixed widths do not hold."""

    account: int
    side: str
    asset: str
    origin: str
    amount_minor: int


class OddAccount(NamedTuple):
    """An account that fixed widths do not hold; instants in microseconds since 2000, as COPY has them."""

    account: int
    tenant: Any
    user: str
    levels: tuple[int, int, int]
    told: int
    told_at: tuple[int | None, ...]
    version: int
    health: int | None


async def enter(connection: AsyncConnection) -> int:
    """Let the rest of the transaction read one snapshot; answers from where the read after it has to ask."""
    await connection.execute(_STEADY)
    await connection.execute(_ROOM)
    return int(await connection.scalar(_SNAPSHOT) or 0)


async def horizon(connection: AsyncConnection) -> int:
    """An id of its own for this transaction: whoever has one by now has a lower one. (A snapshot's xmax would not do: a
    transaction that is open may have that id.)"""
    return int(await connection.scalar(_HORIZON) or 0)


async def symbols(connection: AsyncConnection) -> Sequence[str]:
    """Every asset there is."""
    return list((await connection.execute(_SYMBOLS)).scalars())


async def changed(connection: AsyncConnection, shards: Sequence[int], since: int) -> bytes:
    """Account number and version of what may have changed since the read that answered ``since``, in binary."""
    return await _copied(connection, _CHANGED.format(since=int(since), shards=_numbers(shards)), "binary")


async def read(
    connection: AsyncConnection, symbols: Sequence[str], *, shards: Sequence[int] = (), accounts: Sequence[int] = ()
) -> Binary:
    """All accounts of some shards, or some accounts. ``symbols`` number the assets; all that are held must be there."""
    column, wanted = ("account_no", accounts) if accounts else ("shard", shards)
    which = f"{column} = ANY ('{{{_numbers(wanted)}}}')"
    health = _fixed("coalesce(trunc(health_score * 1000000000000000000), -1)")
    names = ",".join(f'"{symbol}"' for symbol in symbols)
    return Binary(
        heads=await _copied(connection, _HEADS.format(which=which, health=health), "binary"),
        users=await _copied(connection, _USERS.format(which=which), "text"),
        positions=await _copied(
            connection,
            _POSITIONS.format(which=f"a.{which}", symbols=names, amount=_fixed("p.amount_minor")),
            "binary",
        ),
    )


async def odd(
    connection: AsyncConnection, accounts: Sequence[int]
) -> tuple[Sequence[OddAccount], Sequence[OddPosition]]:
    """Accounts as numbers of any size."""
    heads = await connection.execute(_ODD_HEADS, {"accounts": list(accounts)})
    positions = await connection.execute(_ODD_POSITIONS, {"accounts": list(accounts)})
    return [
        OddAccount(
            row.account_no,
            row.tenant_id,
            row.user_id,
            (row.warning_bps, row.margin_call_bps, row.imminent_bps),
            row.told_level,
            tuple(row.told_at),
            row.version,
            _integer(row.health),
        )
        for row in heads
    ], [OddPosition(row.account_no, row.side, row.asset, row.origin, int(row.amount_minor)) for row in positions]


def _integer(found: Decimal | None) -> int | None:
    return None if found is None else int(found)


def _fixed(number: str) -> str:
    """A numeric's binary form in ``NUMBER_BYTES`` bytes, filled up or cut."""
    return f"substring(numeric_send({number}) || '\\x{'00' * 2 * DIGIT_GROUPS}'::bytea FROM 1 FOR {NUMBER_BYTES})"


def _numbers(values: Sequence[int]) -> str:
    return ",".join(str(int(value)) for value in values)


async def _copied(connection: AsyncConnection, query: str, form: str) -> bytes:
    """What a query sends, whole."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    parts: list[bytes] = []

    async def keep(part: bytes) -> None:
        parts.append(part)

    await driver.copy_from_query(query, output=keep, format=form, timeout=_COPY_SECONDS)
    return b"".join(parts)
