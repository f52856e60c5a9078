"""A house that has a history when alerts come to it: nobody is told of what happened long before."""

from __future__ import annotations

import psycopg
from alembic.script import ScriptDirectory

from activities.alerts.intake import CONSUMER
from db import migrate

REVISION = "0013"


def test_the_consumer_begins_where_the_feed_ends(empty_url: str) -> None:
    script = ScriptDirectory.from_config(migrate.config("postgresql://")).get_revision(REVISION)
    assert script is not None
    before = script.down_revision
    assert isinstance(before, str)
    migrate.upgrade(empty_url, before)
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data, position)"
            " SELECT uuidv7(), uuidv7(), 'margin.events.v1', 'margin_call', 'margin:a', now(), '{}', n"
            " FROM generate_series(1, 3) AS n"
        )
    migrate.upgrade(empty_url, REVISION)
    with psycopg.connect(empty_url) as connection:
        found = connection.execute("SELECT position FROM feed_consumers WHERE name = %s", [CONSUMER]).fetchone()
    assert found == (3,)
