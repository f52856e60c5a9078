"""Databases of a test's own on the run's server: empty ones, and migrated ones that are copied, not migrated again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from db import migrate
from db.ids import new_id
from tools.local.postgres import EmbeddedPostgres

_TEMPLATE = "migrated_template"


@contextmanager
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a database without anything in it, which goes with the test."""
    with _scratch(postgres, "template1") as url:
        yield url


@contextmanager
def migrated_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a migrated one, a copy of one that is migrated once for the run."""
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
            migrate.upgrade(postgres.url_of(_TEMPLATE))
    with _scratch(postgres, _TEMPLATE) as url:
        yield url


@contextmanager
def _scratch(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"scratch_{new_id().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield postgres.url_of(name)
    finally:
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
