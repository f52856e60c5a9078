"""Settlement commands by the thousand: singly and in bulk, some twice, some spoiled; and what has to come of each."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.soak.client import Answer, Client
from tests.soak.model import major
from tests.soak.stories import SCALES, Play, Record

ASSET = "USDC"
ACCOUNTS = 30
AMOUNT_MAX = 20_000_000
#: Shares of commands that are told again in another request, and of lines that cannot be commands.
TOLD_AGAIN, SPOILED = 0.05, 0.02
LINES_MAX = 300
NDJSON = "application/x-ndjson"
INGEST = "/commands/ingest"


@dataclass(slots=True)
class Accepted:
    """A command that was taken: when it was first sent, and when it was first known to be taken."""

    sent: float
    answered: float


@dataclass(slots=True)
class Ledger:
    """The ledger's commands that were accepted, by id. Their accounts are touched by nothing else."""

    accepted: dict[str, Accepted] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)

    def note(self, name: str, sent: float) -> None:
        """A command was answered 202 that was sent then; it may have been told before."""
        known = self.accepted.setdefault(name, Accepted(sent, time.monotonic()))
        known.sent = min(known.sent, sent)


def make(seed: str, count: int) -> list[dict[str, Any]]:
    """Commands that move the ledger alone."""
    chance = random.Random(f"{seed}:commands")
    made = []
    for number in range(count):
        kind = chance.choices(("deposit", "withdrawal", "transfer"), weights=(5, 2, 3))[0]
        payer, payee = chance.sample(range(ACCOUNTS), 2)
        body: dict[str, Any] = {
            "command_id": f"{seed}-c{number}",
            "kind": kind,
            "account_ref": f"settled-{payer}",
            "asset_symbol": ASSET,
            "amount": major(chance.randint(1, AMOUNT_MAX), SCALES[ASSET]),
        }
        if kind == "transfer":
            body["counterparty_ref"] = f"settled-{payee}"
        made.append(body)
    return made


def batches(seed: str, commands: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The same commands, cut into requests: many of one, some of hundreds."""
    chance = random.Random(f"{seed}:batches")
    cut, left = [], list(commands)
    while left:
        size = 1 if chance.random() < 0.9 else chance.randint(2, LINES_MAX)
        batch, left = left[:size], left[size:]
        cut.append(batch)
        if chance.random() < TOLD_AGAIN:
            cut.append(list(batch))
    return cut


async def ingest(number: int, batch: Sequence[dict[str, Any]], client: Client, ledger: Ledger, seed: str) -> None:
    """Have one request's commands taken."""
    chance = random.Random(f"{seed}:ingest:{number}")
    # The command's own id makes it one, with an idempotency key or without.
    key = f"{seed}-i{number}" if chance.random() < 0.5 else None
    sent = time.monotonic()
    if len(batch) == 1:
        answer = await client.post(key, INGEST, batch[0])
        told = [(batch[0], answer.status, answer.code)]
    else:
        told = list(_lines(await _bulk(key, batch, chance, client), batch))
    for body, status, code in told:
        if status == 202:
            ledger.note(body["command_id"], sent)
        else:
            ledger.surprises.append(f"{body['command_id']}: {status} {code}")


async def _bulk(key: str | None, batch: Sequence[dict[str, Any]], chance: random.Random, client: Client) -> Answer:
    lines = [json.dumps(body).encode() for body in batch]
    for _ in range(round(len(lines) * SPOILED)):
        bad = chance.choice((b"{", b"[]", b'{"command_id": ""}', b'{"command_id": "x", "amount": "-1"}'))
        lines.insert(chance.randrange(len(lines) + 1), bad)
    return await client.post(key, INGEST, b"\n".join(lines), media_type=NDJSON)


def _lines(answer: Answer, batch: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int, str]]:
    """What each command was answered. A spoiled line has an answer of its own and touches no other."""
    if not answer.ok:
        yield from ((body, answer.status, answer.code) for body in batch)
        return
    told = {}
    for text in answer.content.splitlines():
        line = json.loads(text)
        if line["command_id"] is not None:
            told[line["command_id"]] = line
    for body in batch:
        line = told.get(body["command_id"], {"status": 0})
        yield body, line["status"], (line.get("problem") or {}).get("code", "none")


class CommandPlay(Play):
    """A client whose escrow moves by settlement commands."""

    _commands = 0

    async def tell(self, said: dict[str, Any]) -> str:
        """Have a command taken; its id."""
        self._commands += 1
        name = f"{self.name}-c{self._commands}"
        answer = await self.client.post(None, INGEST, {"command_id": name, **said})
        if answer.status != 202:
            self.record.surprises.append(f"{name}: {answer.code}")
        return name

    async def settled(
        self, name: str, kind: str, role: str, *, amount: int | None = None, body: Mapping[str, Any] | None = None
    ) -> None:
        """Wait until the command is settled, and note what it did."""
        deadline = time.monotonic() + self.client.patience_seconds
        status, told = "", {}
        while time.monotonic() < deadline and status not in ("SETTLED", "REJECTED", "FAILED"):
            await asyncio.sleep(self.chance.uniform(0.1, 1.0))
            told = await self.client.get(f"/commands/{name}")
            status = told["status"]
        if status != "SETTLED":
            self.record.surprises.append(f"command {name} is {status} {told.get('code')}")
        elif amount is not None:
            self.record.transfers[told["transaction_id"]] = (self.buyer, self.asset, amount)
        else:
            self.opened.apply(kind, role, body or {}, self.scale)


async def by_commands(play: CommandPlay) -> None:
    """An escrow that is paid for, funded and released by commands sent at once: their order is kept."""
    play.buyer = f"commander-{play.name}"
    amount = play.amount()
    await play.open(amount)
    escrow = play.opened
    held = amount + amount * escrow.buyer_points // 10_000
    on_escrow = {"asset_symbol": play.asset, "escrow_id": escrow.escrow_id}
    paid = {"kind": "deposit", "account_ref": play.buyer, "asset_symbol": play.asset, "amount": major(held, play.scale)}
    price = major(amount, play.scale)
    # A deposit that comes first is there when the escrow is funded, though they go in two lanes.
    names = [
        await play.tell(paid),
        await play.tell({"account_ref": play.buyer, "amount": price, **on_escrow}),
    ]
    for name, kind in zip(names, ("deposit", "fund"), strict=True):
        await play.settled(name, kind, "buyer", amount=held if kind == "deposit" else None)
    await play.command("approvals", "buyer")
    part = major(max(1, amount // 4), play.scale)
    for kind, who, user in (("release", "buyer", play.buyer), ("refund", "seller", play.seller)):
        said = {"kind": f"escrow_{kind}", "account_ref": user, "amount": part, **on_escrow}
        await play.settled(await play.tell(said), kind, who, body={"amount": part})


def outcomes(rows: Sequence[tuple[Any, ...]], accepted: Mapping[str, Accepted]) -> Iterator[str]:
    """Each command ended as carrying them out one after the other would have it. ``rows``: in the order of that."""
    balances: Counter[str] = Counter()
    missing = set(accepted)
    for name, kind, account, counterparty, amount, status, code in rows:
        missing.discard(name)
        if name not in accepted:
            yield f"command {name} was never accepted"
        possible = kind == "deposit" or balances[account] >= amount
        expected = ("SETTLED", None) if possible else ("REJECTED", "insufficient_funds")
        if (status, code) != expected:
            yield f"command {name} is {status} {code}, not {expected}"
        if status == "SETTLED":
            balances[account] += amount if kind == "deposit" else -amount
            if counterparty is not None:
                balances[counterparty] += amount
    yield from (f"command {name} was accepted and is gone" for name in sorted(missing))


def order(rows: Sequence[tuple[Any, ...]], accepted: Mapping[str, Accepted]) -> Iterator[str]:
    """What was taken before another was sent is carried out before it, where both name an account."""
    latest: dict[str, tuple[float, str]] = {}
    for name, _, *accounts, _, _, _ in rows:
        known = accepted.get(name)
        if known is None:
            continue
        for account in filter(None, accounts):
            sent, other = latest.get(account, (0.0, ""))
            if sent > known.answered:
                yield f"command {name} was taken before {other} was sent, and carried out after it"
            latest[account] = max(latest.get(account, (0.0, "")), (known.sent, name))


#: In the order in which they were carried out: one batch at a time, each in the order received.
LEDGER_COMMANDS = (
    "SELECT command_id, kind, account_ref, counterparty_ref, amount_minor::bigint, status, code"
    " FROM settlement_commands WHERE account_ref LIKE 'settled-%' ORDER BY xmin::text::bigint, sequence"
)

#: What no database of ours may hold of commands.
IMPOSSIBLE = (
    (
        "a command that is stuck or failed",
        "SELECT command_id, kind, status, code, reason, attempts FROM settlement_commands"
        " WHERE status NOT IN ('SETTLED', 'REJECTED')",
    ),
    (
        "a settled command without exactly one transaction, or another one with any",
        "SELECT c.command_id, c.status, count(t.*) AS transactions FROM settlement_commands c"
        " LEFT JOIN ledger_transactions t USING (tenant_id, transaction_id) GROUP BY c.tenant_id, 1, 2"
        " HAVING count(t.*) <> CASE c.status WHEN 'SETTLED' THEN 1 ELSE 0 END",
    ),
    (
        "a transaction of two commands",
        "SELECT transaction_id, count(*) FROM settlement_commands WHERE status = 'SETTLED'"
        " GROUP BY tenant_id, 1 HAVING count(*) > 1",
    ),
    (
        "a command without exactly one outcome in the feed",
        "SELECT c.command_id, c.status, count(o.*) AS events FROM settlement_commands c LEFT JOIN outbox o"
        " ON o.tenant_id = c.tenant_id AND o.subject = 'command:' || c.command_id"
        " AND o.type = 'command.' || lower(c.status) GROUP BY c.tenant_id, 1, 2 HAVING count(o.*) <> 1",
    ),
    (
        "two outcomes of one command in the feed",
        "SELECT subject, count(*) FROM outbox WHERE subject LIKE 'command:%' GROUP BY tenant_id, 1 HAVING count(*) > 1",
    ),
)


def book(connection: psycopg.Connection, record: Record) -> Counter[tuple[str, str, str]]:
    """What transfers among the ledger's settled commands moved; the others go into the record."""
    books: Counter[tuple[str, str, str]] = Counter()
    rows = connection.execute(
        "SELECT kind, account_ref, counterparty_ref, amount_minor::bigint, transaction_id::text"
        " FROM settlement_commands WHERE status = 'SETTLED' AND account_ref LIKE 'settled-%'"
    ).fetchall()
    for kind, account, counterparty, amount, transaction_id in rows:
        if counterparty is None:
            record.transfers[transaction_id] = (account, ASSET, amount if kind == "deposit" else -amount)
        else:
            books[account, ASSET, "available"] -= amount
            books[counterparty, ASSET, "available"] += amount
    return books
