"""Whether the books, the escrows and the feed are where the accepted requests put them; each check names what is not.

Everything is looked at from outside: through the public API, and in the database past every role of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString

import psycopg

from tests.soak.client import Client, Request
from tests.soak.model import ENDS, EXTERNAL, Escrow, minor
from tests.soak.stories import SCALES, Record

Books = Counter[tuple[str, str, str]]
SHOWN = 10
#: Workflows that end by themselves once there is nothing left to do.
PASSING = frozenset({"TransferWorkflow", "SettlementWorkflow"})


def answers(requests: Iterable[Request]) -> Iterator[str]:
    """Each request has an answer, and whoever asks again is told the same: byte for byte, where it was accepted."""
    for request in requests:
        if not request.answers:
            yield f"{request.key}: no answer"
            continue
        first, *others = request.answers
        for other in others:
            if other.code != first.code:
                yield f"{request.key}: {first.code}, then {other.code}"
            elif first.ok and (other.status, other.content) != (first.status, first.content):
                yield f"{request.key}: answered differently: {first.content!r} and {other.content!r}"


def kept(connection: psycopg.Connection, requests: Iterable[Request]) -> Iterator[str]:
    """What was accepted under a key has its answer kept. A refusal need not: what did nothing may be asked anew."""
    rows = connection.execute("SELECT key FROM idempotency_keys WHERE status IS NULL").fetchall()
    unanswered = {row[0] for row in rows}
    for request in requests:
        if request.key in unanswered and any(answer.ok for answer in request.answers):
            yield f"{request.key}: was accepted, and its answer is not kept"


def races(won: Iterable[int]) -> Iterator[str]:
    """Of commands that exclude each other, exactly one was accepted."""
    yield from (f"{count} of the racers were accepted" for count in won if count != 1)


async def escrows(client: Client, expected: Sequence[Escrow]) -> list[str]:
    """Each escrow stands where its accepted commands and the clock put it, and there is no other."""
    found: dict[str, Any] = {}
    cursor: str | None = None
    while True:
        page = await client.get("/escrows", limit=100, **({} if cursor is None else {"cursor": cursor}))
        found |= {item["escrow_id"]: item for item in page["items"]}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    wrong = [f"escrow {stray} was never accepted" for stray in found.keys() - {e.escrow_id for e in expected}]
    for escrow in expected:
        told = found.get(escrow.escrow_id)
        if told is None:
            wrong.append(f"escrow {escrow.escrow_id} is gone")
            continue
        scale = SCALES[escrow.asset]
        theirs = [(m["status"], minor(m["released"], scale), minor(m["refunded"], scale)) for m in told["milestones"]]
        ours = [(m.status, m.released, m.refunded) for m in escrow.milestones]
        if (told["status"], theirs) != (escrow.status, ours):
            wrong.append(f"escrow {escrow.escrow_id}: {told['status']} {theirs}, not {escrow.status} {ours}")
    return wrong


def books_of(record: Record) -> Books:
    """Every balance, from the accepted requests."""
    books: Books = Counter()
    for account, asset, amount in record.transfers.values():
        books[account, asset, "available"] += amount
        books[EXTERNAL, asset, "available"] -= amount
    for escrow in record.escrows:
        escrow.book(books)
    return books


def balances(connection: psycopg.Connection, expected: Mapping[tuple[str, str, str], int]) -> Iterator[str]:
    """Each account has what the accepted requests left it."""
    rows = connection.execute("SELECT ref, asset, available_minor, held_minor FROM accounts").fetchall()
    found = {(ref, asset, "available"): int(available) for ref, asset, available, _ in rows}
    found |= {(ref, asset, "held"): int(held) for ref, asset, _, held in rows}
    for pot in sorted(found.keys() | expected.keys()):
        if found.get(pot, 0) != expected.get(pot, 0):
            yield f"{' '.join(pot)} is {found.get(pot, 0)}, not {expected.get(pot, 0)}"


def transfers(connection: psycopg.Connection, expected: Iterable[str]) -> Iterator[str]:
    """Each accepted deposit and withdrawal was booked once, and nothing else was."""
    rows = connection.execute(
        "SELECT transaction_id::text FROM ledger_transactions WHERE kind IN ('deposit', 'withdrawal')"
    ).fetchall()
    found, wanted = {row[0] for row in rows}, set(expected)
    yield from (f"transaction {stray} was never accepted" for stray in sorted(found - wanted))
    yield from (f"transaction {lost} is not in the ledger" for lost in sorted(wanted - found))


#: What no database of ours may hold: a name, and a query that finds offenders.
IMPOSSIBLE: tuple[tuple[str, LiteralString], ...] = (
    (
        "an asset that does not sum to zero",
        "SELECT tenant_id, asset, sum(available_minor + held_minor) AS sum FROM accounts GROUP BY 1, 2"
        " HAVING sum(available_minor + held_minor) <> 0",
    ),
    (
        "a transaction that does not sum to zero",
        "SELECT transaction_id, asset, sum(amount_minor) AS sum FROM ledger_legs GROUP BY tenant_id, 1, 2"
        " HAVING sum(amount_minor) <> 0",
    ),
    (
        "a balance that is not the sum of its legs",
        "SELECT a.ref, a.asset, a.available_minor, a.held_minor, l.available, l.held FROM accounts a LEFT JOIN ("
        " SELECT tenant_id, account_id, coalesce(sum(amount_minor) FILTER (WHERE pot = 'available'), 0) AS available,"
        " coalesce(sum(amount_minor) FILTER (WHERE pot = 'held'), 0) AS held FROM ledger_legs GROUP BY 1, 2"
        ") l USING (tenant_id, account_id)"
        " WHERE a.available_minor <> coalesce(l.available, 0) OR a.held_minor <> coalesce(l.held, 0)",
    ),
    (
        "a hold that is not the sum of its legs",
        "SELECT h.hold_id, h.remaining_minor, l.left FROM holds h LEFT JOIN ("
        ' SELECT tenant_id, hold_id, sum(amount_minor) AS "left" FROM ledger_legs WHERE hold_id IS NOT NULL'
        " GROUP BY 1, 2) l USING (tenant_id, hold_id) WHERE h.remaining_minor <> coalesce(l.left, 0)",
    ),
    (
        "held money without a hold",
        "SELECT a.ref, a.asset, a.held_minor, sum(h.remaining_minor) AS holds FROM accounts a"
        " LEFT JOIN holds h USING (tenant_id, account_id) GROUP BY a.tenant_id, a.account_id, 1, 2, 3"
        " HAVING a.held_minor <> coalesce(sum(h.remaining_minor), 0)",
    ),
    (
        "a closed escrow that holds money",
        "SELECT e.escrow_id, e.status, h.remaining_minor FROM escrows e JOIN holds h USING (tenant_id, escrow_id)"
        " WHERE e.closed_at IS NOT NULL AND h.remaining_minor <> 0",
    ),
    (
        "an escrow whose version is not its number of receipts",
        "SELECT e.escrow_id, e.version, count(r.*) AS receipts FROM escrows e LEFT JOIN receipts r"
        " ON r.tenant_id = e.tenant_id AND r.step_id LIKE 'escrow:' || e.escrow_id || ':%'"
        " GROUP BY e.tenant_id, 1, 2 HAVING e.version <> count(r.*)",
    ),
    (
        "an escrow whose version is not its number of audit records",
        "SELECT e.escrow_id, e.version, count(a.*) AS records FROM escrows e LEFT JOIN audit_log a"
        " ON a.tenant_id = e.tenant_id AND a.subject = 'escrow:' || e.escrow_id"
        " GROUP BY e.tenant_id, 1, 2 HAVING e.version <> count(a.*)",
    ),
    (
        "a version of an escrow without an event",
        "SELECT e.escrow_id, v AS version FROM escrows e, generate_series(1, e.version) v WHERE NOT EXISTS ("
        " SELECT FROM outbox o WHERE o.tenant_id = e.tenant_id AND o.subject = 'escrow:' || e.escrow_id"
        " AND (o.data ->> 'version')::bigint = v)",
    ),
    (
        "an event that was told twice",
        "SELECT subject, type, data ->> 'version' AS version, data ->> 'milestone' AS milestone, count(*) FROM outbox"
        " WHERE subject LIKE 'escrow:%' GROUP BY tenant_id, 1, 2, 3, 4 HAVING count(*) > 1",
    ),
    (
        "a deposit or withdrawal without exactly one event",
        "SELECT t.transaction_id, t.kind, count(o.*) AS events FROM ledger_transactions t LEFT JOIN outbox o"
        " ON o.tenant_id = t.tenant_id AND o.data ->> 'transaction_id' = t.transaction_id::text"
        " WHERE t.kind IN ('deposit', 'withdrawal') GROUP BY t.tenant_id, 1, 2 HAVING count(o.*) <> 1",
    ),
    ("an event without a place in the feed", "SELECT event_id, type FROM outbox WHERE position IS NULL"),
)


def impossible(connection: psycopg.Connection, queries: Iterable[tuple[str, LiteralString]]) -> Iterator[str]:
    """What may not be, whatever was asked for."""
    for name, query in queries:
        cursor = connection.execute(query)
        rows = cursor.fetchmany(SHOWN)
        columns = [column.name for column in cursor.description or ()]
        yield from (f"{name}: {dict(zip(columns, map(str, row), strict=True))}" for row in rows)


def versions(connection: psycopg.Connection, expected: Iterable[Escrow]) -> Iterator[str]:
    """Each accepted command is one version, and so is each act of the clock."""
    rows = connection.execute(
        "SELECT e.escrow_id::text, e.version, count(a.*) FILTER (WHERE a.action = 'escrow.pass_deadline')"
        " FROM escrows e JOIN audit_log a ON a.tenant_id = e.tenant_id AND a.subject = 'escrow:' || e.escrow_id"
        " GROUP BY e.tenant_id, 1, 2"
    ).fetchall()
    found = {escrow_id: (version, acts) for escrow_id, version, acts in rows}
    for escrow in expected:
        version, acts = found.get(escrow.escrow_id, (0, 0))
        if version != 1 + escrow.accepted + acts:
            yield f"escrow {escrow.escrow_id}: version {version} after {escrow.accepted} commands, {acts} by the clock"


def feed(connection: psycopg.Connection, name: str, ids: Sequence[str]) -> Iterator[str]:
    """A reader that came back with its cursor again and again saw every event once, in the order of the feed."""
    rows = connection.execute("SELECT event_id::text FROM outbox ORDER BY position").fetchall()
    there = [row[0] for row in rows]
    twice = [event for event, count in Counter(ids).items() if count > 1]
    yield from (f"{name}: event {event} was told more than once" for event in twice[:SHOWN])
    missed = sorted(set(there) - set(ids))
    yield from (f"{name}: event {event} was never told" for event in missed[:SHOWN])
    if not twice and not missed and list(ids) != there:
        yield f"{name}: the events were not told in the order of the feed"


async def trial_balance(client: Client) -> list[str]:
    """The API itself says that the books balance."""
    told = await client.get("/ledger/trial-balance")
    return [] if told["balanced"] else [f"the trial balance is not balanced: {told}"]


def workflows(running: Mapping[str, str], expected: Iterable[Escrow]) -> Iterator[str]:
    """Open workflows are those of open escrows: none is stuck, none is lost. ``running`` is their type by id."""
    wanted = {f"escrow:{escrow.escrow_id}" for escrow in expected if escrow.status not in ENDS}
    carried = {name for name, kind in running.items() if kind == "EscrowWorkflow"}
    yield from (f"{name} is open and has no workflow" for name in sorted(wanted - carried))
    yield from (f"{name} is closed and its workflow runs" for name in sorted(carried - wanted))
    yield from (f"{name} did not end" for name, kind in sorted(running.items()) if kind in PASSING)
