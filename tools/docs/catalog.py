"""What a migrated database says about itself: read from PostgreSQL's catalog, in an order that never changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from psycopg.rows import dict_row

from db import migrate
from tools.local.postgres import EmbeddedPostgres

_TABLES = """
SELECT c.oid, c.relname AS name, c.relrowsecurity AS secured, c.relforcerowsecurity AS forced
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname <> 'alembic_version'
ORDER BY c.relname
"""

_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       CASE WHEN a.attidentity <> '' THEN 'identity' ELSE pg_get_expr(d.adbin, d.adrelid) END AS filled,
       col_description(a.attrelid, a.attnum) AS comment
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_CONSTRAINTS = """
SELECT contype AS kind, pg_get_constraintdef(k.oid) AS definition,
       CASE WHEN contype = 'f' THEN confrelid::regclass::text END AS target,
       ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS u (n, i)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i) AS columns
FROM pg_constraint k
WHERE conrelid = %(oid)s AND contype IN ('p', 'u', 'f', 'c', 'x')
ORDER BY position(contype::text IN 'pufcx'), conname
"""

_INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) AS definition
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %(oid)s AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype <> 'f')
ORDER BY c.relname
"""

_POLICIES = """
SELECT polname AS name, pg_get_expr(polqual, polrelid) AS sees, pg_get_expr(polwithcheck, polrelid) AS writes
FROM pg_policy WHERE polrelid = %(oid)s ORDER BY polname
"""

_TRIGGERS = """
SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE tgrelid = %(oid)s AND NOT tgisinternal ORDER BY tgname
"""

_GRANTS = """
SELECT grantee::regrole::text AS role, privilege_type AS right, NULL AS columns
FROM pg_class c, aclexplode(c.relacl) WHERE c.oid = %(oid)s AND grantee <> c.relowner
UNION ALL
SELECT grantee::regrole::text, privilege_type, array_agg(a.attname::text ORDER BY a.attnum)
FROM pg_attribute a, aclexplode(a.attacl) WHERE a.attrelid = %(oid)s AND NOT a.attisdropped
GROUP BY grantee, privilege_type
ORDER BY 2, 1
"""

_FUNCTIONS = """
SELECT p.proname AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
       pg_get_function_result(p.oid) AS result, p.prosecdef AS as_owner, obj_description(p.oid, 'pg_proc') AS comment,
       ARRAY(SELECT CASE grantee WHEN 0 THEN 'everybody' ELSE grantee::regrole::text END
             FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner)))
             WHERE grantee <> p.proowner ORDER BY 1) AS callers
FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f'
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
ORDER BY p.proname
"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table, as the catalog has it."""

    name: str
    secured: bool
    columns: list[Row]
    constraints: list[Row]
    indexes: list[Row]
    policies: list[Row]
    triggers: list[Row]
    grants: list[Row]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every table and function of ours."""

    tables: list[TableFacts]
    functions: list[Row]


def read(database_url: str) -> Catalog:
    """The catalog of a migrated database."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:

        def rows(query: str, oid: int | None = None) -> list[Row]:
            return connection.execute(query.encode(), {"oid": oid} if oid is not None else None).fetchall()

        tables = [
            TableFacts(
                name=table["name"],
                secured=table["secured"] and table["forced"],
                columns=rows(_COLUMNS, table["oid"]),
                constraints=rows(_CONSTRAINTS, table["oid"]),
                indexes=rows(_INDEXES, table["oid"]),
                policies=rows(_POLICIES, table["oid"]),
                triggers=rows(_TRIGGERS, table["oid"]),
                grants=rows(_GRANTS, table["oid"]),
            )
            for table in rows(_TABLES)
        ]
        return Catalog(tables, rows(_FUNCTIONS))


@contextmanager
def fresh_database() -> Iterator[str]:
    """A database that was just migrated, for as long as the block lasts."""
    with TemporaryDirectory(prefix="holdfast-docs-") as folder, EmbeddedPostgres(Path(folder) / "data") as server:
        migrate.upgrade(server.url)
        yield server.url
