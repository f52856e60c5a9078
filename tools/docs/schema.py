"""`docs/schema.md`: the tables as the models declare them (a test holds models and migrations together)."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql

import db.audit
import db.escrow.tables
import db.idempotency
import db.identity
import db.ledger.tables
import db.outbox
import db.receipts  # noqa: F401 - importing a module registers its tables
from db.columns import METADATA

_HEAD = """# Database schema

Made by `python -m tools docs` from the models; the test run compares models and migrations.

Every table with a `tenant_id` is under forced row-level security: a transaction sees and writes the rows of the
tenant in `app.tenant` alone. Amounts are integers in the asset's minor unit; `numeric(78, 0)` holds a uint256.
`recorded_at` is the database's own clock; no role may set it. Ledger, audit log and receipts are append-only. Balances
and what holds have left are derived by the trigger on `ledger_legs`; no role may write them.

| role | may |
|---|---|
| `holdfast_owner` | own the tables, migrate |
| `holdfast_app` | read and add the rows of one tenant at a time; change where an escrow stands, never what was agreed |
| `holdfast_engine` | the same over all tenants; give events their position; delete expired idempotency keys |

Run queries as a member of `holdfast_app`, with `SET app.tenant = '<tenant id>'` first.

"""

_EXAMPLES = """## Query examples

What a user has, and what escrows hold of it:

```sql
SELECT a.asset, a.available_minor / 10::numeric ^ s.scale AS available, a.held_minor / 10::numeric ^ s.scale AS held
FROM accounts a JOIN assets s ON s.symbol = a.asset WHERE a.ref = 'alice';
```

Open escrows that hold money, the largest first:

```sql
SELECT e.escrow_id, e.reference, e.status, sum(h.remaining_minor) AS held_minor
FROM escrows e JOIN holds h ON h.tenant_id = e.tenant_id AND h.escrow_id = e.escrow_id
WHERE e.closed_at IS NULL GROUP BY e.escrow_id, e.reference, e.status HAVING sum(h.remaining_minor) > 0
ORDER BY held_minor DESC;
```

Every movement of one escrow:

```sql
SELECT t.effective_at, t.kind, a.ref, l.pot, l.amount_minor
FROM ledger_transactions t
JOIN ledger_legs l ON l.tenant_id = t.tenant_id AND l.transaction_id = t.transaction_id
JOIN accounts a ON a.tenant_id = l.tenant_id AND a.account_id = l.account_id
WHERE t.escrow_id = '<escrow id>' ORDER BY t.sequence, l.leg_no;
```

Whether the books balance (no row is the answer):

```sql
SELECT asset, sum(available_minor + held_minor) FROM accounts
GROUP BY asset HAVING sum(available_minor + held_minor) <> 0;
```
"""


def schema_page() -> str:
    """The page as it is committed."""
    tables = sorted(METADATA.tables.values(), key=lambda table: table.name)
    parts = [_HEAD, _diagram(tables), *(_table(table) for table in tables), _EXAMPLES]
    return "\n".join(parts)


def _diagram(tables: list[Table]) -> str:
    lines = ["## Diagram", "", "```mermaid", "erDiagram"]
    for table in tables:
        lines.append(f"  {table.name} {{")
        keys = {column.name for column in table.primary_key.columns}
        lines += [f"    {_short_type(column)} {column.name} PK" for column in table.columns if column.name in keys]
        lines.append("  }")
    for table in tables:
        for parent in sorted({key.referred_table.name for key in _foreign_keys(table)}):
            lines.append(f"  {parent} ||--o{{ {table.name} : has")
    return "\n".join([*lines, "```", ""])


def _table(table: Table) -> str:
    lines = [f"## {table.name}", ""]
    if table.comment:
        lines += [table.comment[0].upper() + table.comment[1:] + ".", ""]
    lines += ["| column | type | null | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{column.name}` | {_type(column)} | {'yes' if column.nullable else 'no'} | {column.comment or ''} |"
        for column in table.columns
    ]
    return "\n".join([*lines, "", *_constraints(table), ""])


def _constraints(table: Table) -> Iterator[str]:
    yield f"- primary key ({_names(table.primary_key.columns)})"
    for unique in _sorted(table, UniqueConstraint):
        yield f"- unique ({_names(unique.columns)})"
    for key in _foreign_keys(table):
        yield f"- ({_names(key.columns)}) → {key.referred_table.name} ({_names(e.column for e in key.elements)})"
    for check in _sorted(table, CheckConstraint):
        yield f"- check `{check.sqltext}`"
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield f"- index ({_names(index.columns)}){_where(index)}"


def _foreign_keys(table: Table) -> list[ForeignKeyConstraint]:
    return sorted(table.foreign_key_constraints, key=lambda key: str(key.name))


def _sorted(table: Table, kind: type) -> list:  # type: ignore[type-arg] # SQLAlchemy's constraints share no typed base
    found = [constraint for constraint in table.constraints if type(constraint) is kind]
    return sorted(found, key=lambda constraint: str(constraint.name))


def _where(index: Index) -> str:
    condition = index.dialect_options["postgresql"]["where"]
    return "" if condition is None else f" where {condition}"


def _names(columns) -> str:  # type: ignore[no-untyped-def] # any of SQLAlchemy's column collections
    return ", ".join(column.name for column in columns)


def _type(column: Column) -> str:  # type: ignore[type-arg]
    text = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
    return text.replace("timestamp with time zone", "timestamptz")


def _short_type(column: Column) -> str:  # type: ignore[type-arg]
    return _type(column).split("(")[0].replace(" ", "_")
