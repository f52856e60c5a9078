"""`docs/schema.md`: the tables as a migrated database has them, with a diagram, rights and query examples."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.docs.catalog import Catalog, Row, TableFacts

_HEAD = """# Database schema

Made by `python -m tools docs` from a freshly migrated database; the test run compares.

A table "under row-level security" shows and takes, in a transaction, the rows of the tenant in `app.tenant` alone.
Amounts are integers in the asset's minor unit; `numeric(78,0)` holds a uint256. `recorded_at` is the database's own
clock; no role may set it. Balances and what holds have left are written by the trigger on `ledger_legs`; no role may.

| role | may |
|---|---|
| `holdfast_owner` | own the tables, migrate |
| `holdfast_app` | read and add the rows of one tenant at a time; change where an escrow stands, never what was agreed |
| `holdfast_engine` | the same over all tenants; number, seal, move the feed's consumers; delete old idempotency keys |

Run queries as a member of `holdfast_app`, with `SET app.tenant = '<tenant id>'` first.
"""

#: What each table is for. A table that is missing here fails the check.
ABOUT = {
    "accounts": "What a party has of one asset, and our own accounts: the outside world and the fees.",
    "alert_attempts": "Every attempt to deliver an alert: what was sent before the call, its answer, what came later. "
    "Append-only and sealed.",
    "alert_contacts": "Ways to a user, used once a code that was sent there came back.",
    "alert_notifications": "Alerts, with where each of their deliveries stands.",
    "alert_policies": "What a tenant decided follows an alert until somebody acknowledges it.",
    "alert_preferences": "Language, clock, quiet hours and least urgency of a user.",
    "api_keys": "Who may call, hashed; found by a function before the tenant is known.",
    "assets": "What amounts are counted in. Platform-wide: every tenant reads it, a migration adds to it.",
    "audit_log": "Who did what to what, and when. Append-only; an escrow's timeline is read from it.",
    "backfill_chunks": "A job's blocks in pieces, how far each is, and which worker is at it.",
    "backfill_jobs": "What was to be brought of the past, here or elsewhere, how far it is, and what was verified.",
    "chain_blocks": "Headers of blocks: every one of the live end; those that were left stay, marked.",
    "chain_books": "What contracts said of their money at final blocks, beside the ledger that mirrors it.",
    "chain_budgets": "How many requests may be made of a provider now, by all processes. Platform-wide.",
    "chain_coverage": "Which blocks of a source are here with all of their events; whoever writes a source's "
    "rows locks it first.",
    "chain_credits": "Which hold says what a contract owes to an account, until it is withdrawn there.",
    "chain_cursors": "Where the live end of a source stands, how much of it is final, and up to where it is settled.",
    "chain_escrows": "Which escrow here follows which on chain.",
    "chain_events": "What happened on chain, each time a block had it; those of blocks that were left stay, marked.",
    "chain_providers": "How each provider does, as whoever asked it last saw it. Platform-wide: every tenant reads it.",
    "chain_reorgs": "Reorganisations: how deep, what they reverted, and who showed them.",
    "chain_sources": "What is followed: a contract, or addresses of interest. Each is one tenant's.",
    "escrow_milestones": "Where each part of an escrow stands.",
    "escrows": "What was agreed, which no role may update, and where the escrow stands.",
    "feed_consumers": "How far each consumer of the feed has come: the dispatcher, and one per stream of a broker.",
    "feed_faults": "Events that a consumer left out after repeated bugs. An operator looks here when the metric moves.",
    "freezes": "What an operator stopped, why, and when it was lifted.",
    "holds": "Money set apart for one milestone or one pending transfer.",
    "idempotency_keys": "Requests in flight and the answers of finished ones, kept for a week.",
    "ledger_legs": "What a transaction moves. Append-only; inserting legs is the only way to move money.",
    "ledger_transactions": "Why money moved, and when. Append-only.",
    "mailbox_messages": "What was told where no vendor is set up: the local mailbox.",
    "margin_accounts": "Whose health is watched: the levels, what its user was last told, and what the book follows.",
    "margin_audit_findings": "Accounts that the auditor found told what no rule explains. There should be none.",
    "margin_book": "How far each of the 64 shards of the margin book is, and the fence against stragglers.",
    "margin_events": "What a user was told of an account's health, with what would help; the alerts' evidence.",
    "margin_health_snapshots": "Health at an instant, with every price and parameter that it was computed from.",
    "margin_parameter_versions": "From when on a set of parameters is in force. Platform-wide, append-only.",
    "margin_parameters": "What each asset counts for, by version. Platform-wide, append-only.",
    "margin_positions": "What an account has and owes, declared by the tenant or held by escrows.",
    "margin_settings": "Whether, and whose, collateral the money in funded escrows is.",
    "outbox": "What happened, in the commit in which it happened; the durable feed is read from it by position.",
    "pending_transfers": "Transfers in two phases: money on hold until it is posted, voided or expires.",
    "price_history": "What prices were, and what each source said. Platform-wide, partitioned by month.",
    "price_ticks": "Refreshes that changed some price, in order. Platform-wide.",
    "prices": "The price of each asset, how good it is, and why. Platform-wide.",
    "publications": "What a broker outside has acknowledged, and where in its stream it stands.",
    "receipts": "Steps that were done, with their answers: a step that is repeated finds its own.",
    "reconciliation_accounts": "A second book: the legs of each account, added up apart from the balances.",
    "reconciliation_bases": "How far a second book has come. The newest that is completed is compared with.",
    "reconciliation_findings": "Differences between the books, from the run that saw them first to the last.",
    "reconciliation_holds": "A second book: the legs of each hold, added up.",
    "reconciliation_runs": "Comparisons of escrows, holds, transfers and balances with the ledger, and their figures.",
    "seal_batches": "The hash of every ledger transaction, in order, under one Merkle root per batch. Append-only.",
    "seal_checkpoints": "The signed root over all batches, a minute apart; also written outside. Append-only.",
    "settlement_commands": "What was asked for, which no role may update, and where it stands; a finish is final.",
    "tenants": "Customers of the house.",
    "webhook_attempts": "Every attempt to deliver: written before its request, and what came of it after.",
    "webhook_deliveries": "What each endpoint gets, the exact bytes, and where it stands; a queue by its next attempt.",
    "webhook_replays": "Times whose events an endpoint gets again, and how far each is.",
    "webhook_secrets": "The keys that sign an endpoint's requests; the old ones for the time of an overlap.",
    "webhook_subscriptions": "Endpoints: where they are, what they want, how they do.",
}

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

What a user had at an instant, by when it counts (take `t.recorded_at` for what was known then):

```sql
SELECT a.asset, sum(l.amount_minor) FILTER (WHERE l.pot = 'available') AS available_minor,
       sum(l.amount_minor) FILTER (WHERE l.pot = 'held') AS held_minor
FROM accounts a
JOIN ledger_legs l ON l.tenant_id = a.tenant_id AND l.account_id = a.account_id
JOIN ledger_transactions t ON t.tenant_id = l.tenant_id AND t.transaction_id = l.transaction_id
WHERE a.ref = 'alice' AND t.effective_at <= '2026-01-31T00:00:00Z' GROUP BY a.asset;
```

Who did what to an escrow:

```sql
SELECT at, action, actor_user, actor_key_id, request_id, details FROM audit_log
WHERE subject = 'escrow:<escrow id>' ORDER BY audit_id;
```

The next events of a topic after a position:

```sql
SELECT position, type, subject, occurred_at, data FROM outbox
WHERE topic = 'settlement.events.v1' AND position > 0 ORDER BY position LIMIT 100;
```

Whether the books balance (no row is the answer):

```sql
SELECT asset, sum(available_minor + held_minor) FROM accounts
GROUP BY asset HAVING sum(available_minor + held_minor) <> 0;
```
"""

_KINDS = {"p": "primary key", "u": "unique", "f": "", "c": "check", "x": "exclude"}


def schema_page(catalog: Catalog) -> str:
    """The page as it is committed."""
    tables = [line for table in catalog.tables for line in _table(table)]
    return "\n".join([_HEAD, *_diagram(catalog.tables), *tables, *_functions(catalog.functions), _EXAMPLES])


def _diagram(tables: list[TableFacts]) -> Iterator[str]:
    """Keys and relations; the other columns stand in the tables below."""
    yield from ("## Diagram", "", "```mermaid", "erDiagram")
    for table in tables:
        primary, foreign = _key_columns(table, "p"), _key_columns(table, "f")
        yield f"  {table.name} {{"
        for column in table.columns:
            marks = [mark for mark, names in (("PK", primary), ("FK", foreign)) if column["name"] in names]
            if marks:
                yield f"    {_short(column['type'])} {column['name']} {', '.join(marks)}"
        yield "  }"
    for table in tables:
        optional = {column["name"] for column in table.columns if not column["required"]}
        for key in table.constraints:
            if key["kind"] == "f":
                one = "|o" if optional & set(key["columns"]) else "||"
                yield f'  {key["target"]} {one}--o{{ {table.name} : "{", ".join(key["columns"])}"'
    yield from ("```", "")


def _table(table: TableFacts) -> Iterator[str]:
    yield from (f"## {table.name}", "", ABOUT.get(table.name, ""), "")
    yield from ("| column | type | null | filled by | meaning |", "|---|---|---|---|---|")
    for column in table.columns:
        filled = f"`{column['filled']}`" if column["filled"] else ""
        yield (
            f"| `{column['name']}` | {_plain(column['type'])} | {'' if column['required'] else 'yes'} | {filled} |"
            f" {_prose(column['comment'])} |"
        )
    yield ""
    yield from _constraints(table)
    for index in table.indexes:
        kind = "unique index" if index["definition"].startswith("CREATE UNIQUE") else "index"
        yield f"- {kind} {_code(index['definition'].partition(' USING btree ')[2] or index['definition'])}"
    yield from (f"- trigger {_code(_trigger(each['definition']))}" for each in table.triggers)
    if table.secured:
        yield from (f"- row-level security, forced: {_policy(each)}" for each in table.policies)
    else:
        yield "- no row-level security"
    yield from (f"- `{role}` may {rights}" for role, rights in _rights(table).items())
    yield ""


def _policy(policy: Row) -> str:
    if policy["sees"] is None:
        return f"nobody inserts but where {_code(_bare(policy['writes']))}"
    also = "also reads " if policy["writes"] is None else ""
    return f"{also}rows where {_code(_bare(policy['sees']))}"


def _constraints(table: TableFacts) -> Iterator[str]:
    for each in table.constraints:
        body = re.sub(r"^(PRIMARY KEY|UNIQUE|FOREIGN KEY|CHECK|EXCLUDE) ", "", each["definition"])
        if each["kind"] == "c":
            body = _bare(body)
        yield "- " + f"{_KINDS[each['kind']]} {_code(body.replace(' REFERENCES ', ' → '))}".lstrip()


def _rights(table: TableFacts) -> dict[str, str]:
    """What each role may do, with the columns where it is not all of them."""
    found: dict[str, list[str]] = {}
    order = ["SELECT", "INSERT", "UPDATE", "DELETE"]
    for grant in sorted(table.grants, key=lambda each: (order.index(each["right"]), each["role"])):
        columns = f" ({', '.join(f'`{name}`' for name in grant['columns'])})" if grant["columns"] else ""
        found.setdefault(grant["role"], []).append(f"{grant['right'].lower()}{columns}")
    said = {role: "; ".join(rights) for role, rights in sorted(found.items())}
    if len(said) > 1 and len(set(said.values())) == 1:
        return {"`, `".join(said): next(iter(said.values()))}
    return said


def _functions(functions: list[Row]) -> Iterator[str]:
    yield from ("## Functions", "", "| function | returns | acts as | called by | meaning |", "|---|---|---|---|---|")
    for each in functions:
        acts = "its owner" if each["as_owner"] else "its caller"
        callers = ", ".join(f"`{name}`" if name != "everybody" else name for name in each["callers"]) or "triggers"
        name = _code(f"{each['name']}({each['arguments']})")
        yield f"| {name} | {_plain(each['result'])} | {acts} | {callers} | {_prose(each['comment'])} |"
    yield ""


def _key_columns(table: TableFacts, kind: str) -> set[str]:
    return {name for each in table.constraints if each["kind"] == kind for name in each["columns"]}


def _trigger(definition: str) -> str:
    """``append_only BEFORE DELETE … EXECUTE FUNCTION refuse_change()``, without the words that say nothing new."""
    text = definition.removeprefix("CREATE TRIGGER ").replace(" FOR EACH STATEMENT", "")
    return re.sub(r" ON public\.\w+", "", text).replace("EXECUTE FUNCTION ", "→ ")


def _bare(expression: str) -> str:
    """Without the parentheses that PostgreSQL puts around a whole expression."""
    while expression.startswith("(") and _closes_at_end(expression):
        expression = expression[1:-1]
    return expression


def _closes_at_end(expression: str) -> bool:
    depth = 0
    for place, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place == len(expression) - 1
    return False


def _code(text: str) -> str:
    return f"`{_plain(text)}`"


def _prose(text: str | None) -> str:
    """A comment in a table's cell, where ``<id>`` would be taken for markup."""
    return (text or "").replace("<", "&lt;").replace("|", "\\|")


def _plain(text: str) -> str:
    return text.replace("timestamp with time zone", "timestamptz")


def _short(type_name: str) -> str:
    """A type in one word, which is all that the diagram's language takes."""
    return _plain(type_name).partition("(")[0].replace(" ", "_")
