"""The log of attempts as it is sealed: its form, equal in SQL and in Python, and no row of it is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.string import TextLoader
from sqlalchemy.ext.asyncio import AsyncEngine

from db.alerts import attempts, notifications
from db.alerts.attempts import Entry, Phase
from db.engine import tenant_transaction
from db.ids import new_id
from db.sealing import queries
from db.sealing.streams import ALERTS
from domain.alerts.model import AlertType, Channel
from domain.sealing.records import Attempt, attempt_entry, entries_of
from kit.clock import now
from tests.domain.alerts import alert

_ROWS = """
SELECT sequence, tenant_id, entry_id, notification_id, attempt_id, delivery, encode(timestamptz_send(at), 'hex'),
       encode(timestamptz_send(recorded_at), 'hex'), phase, channel, vendor, address, subject, body, html, outcome,
       reference, code, detail, provider_event
FROM alert_attempts WHERE tenant_id = %s ORDER BY sequence
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as made:
        for kind in ("int2", "int8", "uuid"):
            made.adapters.register_loader(kind, TextLoader)
        yield made


async def noted(engine: AsyncEngine, tenant: UUID, entries: list[dict[str, Any]]) -> UUID:
    """An alert whose log has these rows."""
    told = alert(AlertType.WARNING, tenant_id=tenant, notification_id=new_id())
    async with tenant_transaction(engine, tenant) as connection:
        await notifications.add(connection, [(told, bytes(32))])
        made = [Entry(new_id(), told.notification_id, delivery=1, at=now(), **each) for each in entries]
        assert len(await attempts.append(connection, tenant, made)) == len(made)
    return told.notification_id


def in_sql(connection: psycopg.Connection[Any], after: int) -> dict[UUID, bytes]:
    """The entries as the sealer's statement makes them, by id."""
    query = queries._ENTRIES.format(entries=ALERTS.entries)
    for name in ("after", "until", "limit"):
        query = query.replace(f":{name}", f"%({name})s")
    found = connection.execute(query.encode(), {"after": after, "until": 2**62, "limit": 10_000}).fetchone()
    assert found is not None
    return {UUID(bytes=each.id): each.leaf for each in entries_of(bytes(found[0] or b""))}


WORDS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(list(Phase)), WORDS, WORDS, WORDS), min_size=1, max_size=3))
async def test_the_form_is_the_same_in_sql_and_in_python(
    tenants_engine: AsyncEngine,
    tenant: UUID,
    connection: psycopg.Connection[Any],
    rows: list[tuple[Phase, str | None, str | None, str | None]],
) -> None:
    before = connection.execute("SELECT coalesce(max(sequence), 0)::text FROM alert_attempts").fetchone()
    assert before is not None
    entries = [
        {"phase": phase, "attempt_id": new_id(), "channel": Channel.SMS, "subject": one, "body": two, "detail": three}
        for phase, one, two, three in rows
    ]
    await noted(tenants_engine, tenant, entries)
    found = [Attempt._make(row) for row in connection.execute(_ROWS, [tenant])][-len(rows) :]
    sealed = in_sql(connection, int(before[0]))
    for row in found:
        assert sealed[UUID(row.entry_id)] == attempt_entry(row).leaf


def test_every_column_is_in_the_form(connection: psycopg.Connection[Any]) -> None:
    """A column that is added later must be sealed as well: by a second version of the form."""
    found = connection.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'alert_attempts'")
    assert {str(name) for (name,) in found} == set(Attempt._fields)


@pytest.mark.parametrize("change", ["UPDATE alert_attempts SET detail = 'x'", "DELETE FROM alert_attempts"])
async def test_no_row_is_ever_changed(
    tenants_engine: AsyncEngine, tenant: UUID, connection: psycopg.Connection[Any], change: str
) -> None:
    await noted(tenants_engine, tenant, [{"phase": Phase.BEGUN, "attempt_id": new_id()}])
    with pytest.raises(psycopg.OperationalError, match="append-only"):
        connection.execute(change.encode())


async def test_a_receipt_that_comes_again_is_no_second_row(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    receipt = {"phase": Phase.RECEIPT, "attempt_id": new_id(), "provider_event": "sendgrid:1"}
    notification_id = await noted(tenants_engine, tenant, [receipt])
    again = Entry(new_id(), notification_id, Phase.RECEIPT, 1, now(), provider_event="sendgrid:1")
    async with tenant_transaction(tenants_engine, tenant) as connection:
        assert await attempts.append(connection, tenant, [again]) == set()
