"""Sealing: every committed row once, in order, whatever commits late; and its form, equal in SQL and in Python."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql as statements

from activities.sealing.sealer import Sealer
from db.engine import transaction
from db.sealing import queries
from db.sealing.queries import NotSealable
from db.sealing.streams import LEDGER
from domain.sealing import merkle
from domain.sealing.horizon import Horizon
from domain.sealing.records import ENTRY_BYTES, Entry, Leg, Transaction, instant_hex, ledger_entry, ledger_form
from tests.databases import migrated_database
from tests.db.raw import NOT_ALLOWED, acting, refused, sql
from tests.polling import eventually
from tests.seals import Vault, open_vault
from tools.local.postgres import EmbeddedPostgres

WRITERS, STEPS = 20, 15


@pytest.fixture
def sealing_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture
async def vault(sealing_url: str, tmp_path: Path) -> AsyncIterator[Vault]:
    async with open_vault(sealing_url, tmp_path) as vault:
        yield vault


def committed(vault: Vault) -> list[tuple[int, bytes]]:
    rows = vault.ask("SELECT sequence, uuid_send(transaction_id) FROM ledger_transactions ORDER BY sequence")
    return [(key, bytes(identity)) for key, identity in rows]


async def test_what_was_committed_is_sealed_in_order(vault: Vault) -> None:
    assert await vault.seal() == []
    made = await vault.deposit(*range(1, 7))
    assert await vault.seal() == [4, 2]
    made += await vault.deposit(7)
    assert await vault.seal() == [1]
    assert await vault.seal() == []
    assert [UUID(bytes=entry.id) for entry in vault.sealed()] == made
    heads = vault.ask(
        "SELECT batch_no, first_key, last_key, entry_count, total_count FROM seal_batches ORDER BY batch_no"
    )
    assert heads == [(1, 1, 4, 4, 4), (2, 5, 6, 2, 6), (3, 7, 7, 1, 7)]


async def test_the_tree_over_batches_is_kept_in_its_nodes(vault: Vault) -> None:
    for amount in range(1, 12):
        await vault.deposit(amount)
        await vault.seal()
    async with transaction(vault.engine) as connection:
        heads = await queries.heads(connection, LEDGER, after=0, limit=100)
        leaves = [head.leaf() for head in heads]
        for size in range(12):
            assert (await queries.frontier(connection, LEDGER, size)).root() == merkle.root(leaves[:size])
    assert len(leaves) == 11


async def test_twenty_writers_with_late_commits_and_rollbacks(vault: Vault) -> None:
    """A row is sealed once it is certain that no row with a lower key can come, and not before."""
    chance = random.Random(20261121)
    writing, given_up = True, 0

    async def write(writer: int) -> None:
        nonlocal given_up
        for _ in range(STEPS):
            postings = [vault.move(writer) for _ in range(chance.randrange(1, 4))]
            async with vault.posting_under_way(*postings) as work:
                await asyncio.sleep(chance.random() / 10)
                if chance.random() < 0.2:
                    given_up += len(postings)
                else:
                    await work.commit()

    async def seal(sealer: Sealer) -> None:
        while writing:
            await sealer.seal(LEDGER)
            await asyncio.sleep(chance.random() / 100)

    await vault.fund(*range(WRITERS))
    sealing = [asyncio.create_task(seal(vault.new_sealer(batch_entries=size))) for size in (3, 50)]
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    during = len(vault.sealed())
    writing = False
    await asyncio.gather(*sealing)
    await vault.seal()
    sealed = [(entry.key, entry.id) for entry in vault.sealed()]
    assert sealed == committed(vault)
    assert given_up > 0
    assert during > len(sealed) // 2, "the sealer kept up with the writers"


def test_the_horizon_waits_for_those_who_were_there() -> None:
    horizon = Horizon()
    horizon.look(5, frozenset())
    assert (horizon.safe, horizon.waits) == (5, False)
    horizon.look(9, {"a", "b"})
    assert (horizon.safe, horizon.waits) == (5, True)
    horizon.look(20, {"b", "c"})
    assert (horizon.safe, horizon.waits) == (5, True), "b was there when 9 was seen"
    horizon.look(30, {"c", "d"})
    assert (horizon.safe, horizon.waits) == (9, True), "9 is safe; 30 waits for c and d"
    horizon.look(40, {"e"})
    assert (horizon.safe, horizon.waits) == (30, True)
    horizon.look(40, set())
    assert (horizon.safe, horizon.waits) == (40, False)


async def test_a_row_that_commits_late_is_sealed_before_those_behind_it(vault: Vault) -> None:
    await vault.fund(1, 2)
    assert await vault.seal() == [4]
    late, early = vault.move(1), vault.move(2)
    async with vault.posting_under_way(late) as first:
        async with vault.posting_under_way(early) as second:
            await second.commit()
        assert await vault.seal() == [], "the row before it is still under way"
        await first.commit()
    assert await vault.seal() == [2]
    assert [UUID(bytes=entry.id) for entry in vault.sealed()[4:]] == [late.transaction_id, early.transaction_id]


async def test_who_only_reads_or_writes_elsewhere_delays_nothing(vault: Vault) -> None:
    await vault.deposit(1)
    with psycopg.connect(vault.url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT pg_current_xact_id(), count(*) FROM ledger_transactions")
        reader.execute("UPDATE outbox SET position = position")
        await vault.deposit(2)
        assert await vault.seal() == [2]


async def test_a_gap_is_no_reason_to_wait(vault: Vault) -> None:
    await vault.deposit(1)
    async with vault.posting_under_way(*(vault.posting(amount) for amount in range(1, 5))):
        pass
    await vault.deposit(2)
    assert await vault.seal() == [2]
    assert [entry.key for entry in vault.sealed()] == [1, 6]


async def test_one_sealer_at_a_time(vault: Vault) -> None:
    await vault.deposit(1)
    async with vault.engine.connect() as connection, connection.begin():
        assert await queries.take_turn(connection)
        assert await vault.new_sealer().seal(LEDGER) == 0
    assert await vault.seal() == [1]


async def test_keys_out_of_a_cache_are_refused(vault: Vault) -> None:
    vault.ask("ALTER TABLE ledger_transactions ALTER sequence SET CACHE 20")
    with pytest.raises(NotSealable, match=r"ledger_transactions\.sequence must be .* CACHE 1, it has 20"):
        await vault.seal()


async def test_the_sealer_runs_by_itself_and_outlasts_its_connections(vault: Vault) -> None:
    sealer = Sealer(vault.engine, vault.signer, seal_seconds=0.05)
    running = asyncio.create_task(sealer.run())
    try:
        for number in range(2):
            await vault.deposit(1, 2, 3)

            async def all_sealed(wanted: int = 3 * (number + 1)) -> bool:
                return len(vault.sealed()) == wanted

            await eventually(all_sealed)
            vault.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'holdfast_engine'"
            )
        await eventually(lambda: asyncio.to_thread(lambda: vault.file.last() is not None))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("table", ["seal_batches", "seal_checkpoints"])
async def test_seals_are_written_by_the_engine_alone_and_never_changed(vault: Vault, table: str) -> None:
    await vault.deposit(1)
    await vault.seal()
    await vault.sign()
    for role in (vault.app, vault.engine):
        for statement in (f"UPDATE {table} SET stream = 'x'", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with refused() as reason:
                async with acting(role, vault.tenant) as connection:
                    await sql(connection, statement)
            assert reason.sqlstate == NOT_ALLOWED
    with refused() as reason:
        async with acting(vault.app, vault.tenant) as connection:
            await sql(connection, f"INSERT INTO {table} (stream) VALUES ('x')")
    assert reason.sqlstate == NOT_ALLOWED
    with pytest.raises(psycopg.DatabaseError, match="append-only"):
        vault.ask(f"DELETE FROM {table}")


async def test_a_tenant_reads_nothing_of_others_in_the_seals(vault: Vault) -> None:
    await vault.deposit(1)
    await vault.seal()
    for columns in ("*", "entries", "total_count", "first_key"):
        with refused() as reason:
            async with acting(vault.app, vault.tenant) as connection:
                await sql(connection, f"SELECT {columns} FROM seal_batches")
        assert reason.sqlstate == NOT_ALLOWED
    async with acting(vault.app, vault.tenant) as connection:
        assert len(await sql(connection, "SELECT batch_no, nodes FROM seal_batches")) == 1


def test_every_column_is_in_the_form(sealing_url: str) -> None:
    """A column that is added later must be sealed as well: by a second version of the form."""
    with psycopg.connect(sealing_url) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_name IN ('ledger_transactions', 'ledger_legs')"
        ).fetchall()
    of: dict[str, set[str]] = {"ledger_transactions": set(), "ledger_legs": set()}
    for table, column in rows:
        of[table].add(column)
    assert of["ledger_transactions"] == set(Transaction._fields)
    assert of["ledger_legs"] == set(Leg._fields) | {"tenant_id", "transaction_id"}


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["", "|", ":", "1:a|", "\n", "'", '"', "\\", "Ünïcödé 🜚", "e\u0301", "\u2028", "NULL"]
)
INSTANTS = st.datetimes(
    min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.timezones()
) | st.sampled_from([datetime(1999, 12, 31, 23, 59, 59, 999999, UTC), datetime(2000, 1, 1, tzinfo=UTC)])
AMOUNTS = st.integers(-(10**78) + 1, 10**78 - 1)
LEGS = st.lists(st.tuples(st.integers(1, 2**40), AMOUNTS, st.none() | st.uuids(), TEXTS, TEXTS), max_size=4)
ROWS = st.tuples(
    st.integers(-(2**62), 2**62),
    st.uuids(),
    st.uuids(),
    st.integers(-9, 9),
    INSTANTS,
    INSTANTS,
    st.none() | st.uuids(),
    st.none() | st.uuids(),
    TEXTS,
    st.none() | TEXTS,
    st.none() | TEXTS,
)


@pytest.fixture(scope="module")
def odd_rows(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """A ledger that takes any row at all: no constraint, no trigger, and instants shown in an odd zone."""
    with migrated_database(postgres) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE ledger_legs, ledger_transactions CASCADE;"
            "CREATE TABLE ledger_transactions (tenant_id uuid, transaction_id uuid, sequence bigint, kind text,"
            " reference text, description text, escrow_id uuid, reverses_id uuid, leg_count smallint,"
            " effective_at timestamptz, recorded_at timestamptz);"
            "CREATE TABLE ledger_legs (tenant_id uuid, transaction_id uuid, leg_no smallint, account_id bigint,"
            " asset text, pot text, amount_minor numeric(78, 0), hold_id uuid);"
            "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'; SET bytea_output = 'escape'"
        )
        yield connection


def in_sql(connection: psycopg.Connection[Any], row: tuple[Any, ...], legs: list[tuple[Any, ...]]) -> bytes:
    """The entry as the sealer's statement makes it."""
    sequence, tenant, transaction_id = row[:3]
    query = queries._ENTRIES.format(entries=LEDGER.entries)
    for name in ("after", "until", "limit"):
        query = query.replace(f":{name}", f"%({name})s")
    with connection.transaction(force_rollback=True):
        connection.execute(
            statements.SQL(
                "INSERT INTO ledger_transactions (sequence, tenant_id, transaction_id, leg_count, effective_at,"
                " recorded_at, escrow_id, reverses_id, kind, reference, description) VALUES ({})"
            ).format(statements.SQL(", ").join([statements.Placeholder()] * 11)),
            row,
        )
        for number, (account, amount, hold, asset, pot) in reversed(list(enumerate(legs, 1))):
            connection.execute(
                "INSERT INTO ledger_legs (tenant_id, transaction_id, leg_no, account_id, amount_minor, hold_id, asset,"
                " pot) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (tenant, transaction_id, number, account, amount, hold, asset, pot),
            )
        found = connection.execute(query.encode(), {"after": sequence - 1, "until": sequence, "limit": 10}).fetchone()
    assert found is not None
    return bytes(found[0])


def in_python(row: tuple[Any, ...], legs: list[tuple[Any, ...]]) -> Entry:
    """The entry as the verifier makes it."""
    head = [instant_hex(value) if isinstance(value, datetime) else value for value in row]
    t = Transaction(*(None if value is None else str(value) for value in head))  # type: ignore[arg-type]
    return ledger_entry(
        t,
        [
            Leg(str(number), str(account), str(amount), None if hold is None else str(hold), asset, pot)
            for number, (account, amount, hold, asset, pot) in enumerate(legs, 1)
        ],
    )


@given(ROWS, LEGS)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sql_and_python_make_the_same_entry(
    odd_rows: psycopg.Connection[Any], row: tuple[Any, ...], legs: list[tuple[Any, ...]]
) -> None:
    entry = in_python(row, legs)
    raw = in_sql(odd_rows, row, legs)
    assert len(raw) == ENTRY_BYTES
    assert raw == entry.key.to_bytes(8, signed=True) + entry.tenant + entry.id + entry.leaf


@given(ROWS, LEGS, ROWS, LEGS)
@settings(deadline=None, max_examples=100)
def test_two_rows_have_two_forms(
    one: tuple[Any, ...], one_legs: list[Any], other: tuple[Any, ...], other_legs: list[Any]
) -> None:
    same = (one, one_legs) == (other, other_legs)
    assert (in_python(one, one_legs).leaf == in_python(other, other_legs).leaf) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"kind": "a|0:", "reference": ""}, {"kind": "a", "reference": "|0:"}),
        ({"reference": None, "description": ""}, {"reference": "", "description": None}),
        ({"reference": "1:x"}, {"reference": "x"}),
        ({"description": "\n1|2|3||4:USDC|9:available"}, {"description": ""}),
    ],
)
def test_a_text_cannot_pose_as_the_next_field(one: dict[str, Any], other: dict[str, Any]) -> None:
    plain = Transaction("1", "t", "x", "2", "0" * 16, "0" * 16, None, None, "deposit", "r", None)
    assert ledger_form(plain._replace(**one), []) != ledger_form(plain._replace(**other), [])


def test_an_instant_is_what_it_is_in_any_zone() -> None:
    at = datetime(2026, 11, 21, 10, 0, 0, 1, UTC)
    microseconds = (at - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert instant_hex(at) == instant_hex(at.astimezone(ZoneInfo("Asia/Kathmandu"))) == f"{microseconds:016x}"
    assert instant_hex(datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC)) == "f" * 16
