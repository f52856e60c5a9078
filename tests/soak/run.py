"""One soak: a stack, clients that work with it, damage done to it meanwhile, and the verdict."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psycopg

from kit.build import ROOT
from kit.temporal import connect
from tests.soak import commands, verdict
from tests.soak.chaos import PATIENCE_SECONDS, Chaos
from tests.soak.client import Client, NoAnswer
from tests.soak.feed import CursorReader, Reader, StreamReader
from tests.soak.fleet import Fleet
from tests.soak.model import Escrow
from tests.soak.result import SETTLE_SECONDS, Result, Size, recovery
from tests.soak.savers import save
from tests.soak.stories import STORIES, Play, Record

REPORT_SECONDS = 15.0
VERDICT_SECONDS = 300.0
LISTED_SECONDS = 60.0
READ_SECONDS = 30.0
START_SECONDS = 180.0
VERIFY_SECONDS = 120.0


class Soak:
    """Runs one soak below ``folder``."""

    def __init__(self, size: Size, folder: Path, say: Callable[[str], None]) -> None:
        self.size = size
        self.result = Result(size)
        self.record = Record()
        self.ledger = commands.Ledger()
        self._folder = folder
        self._began = time.monotonic()
        self._tell = say

    def say(self, text: str) -> None:
        """A line with the time since the start."""
        self._tell(f"{time.monotonic() - self._began:7.1f} s  {text}")

    async def run(self) -> Result:
        """All of it, within its bounds."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fire = self.size.seconds * 2 + self.size.kills * PATIENCE_SECONDS
        limit = START_SECONDS + fire + 2 * SETTLE_SECONDS + VERDICT_SECONDS
        async with asyncio.timeout(limit), Fleet(self._folder, self.say) as fleet:
            await self._under_fire(fleet)
        return self.result

    async def _under_fire(self, fleet: Fleet) -> None:
        size = self.size
        client = Client(
            fleet.api_url,
            fleet.api_key,
            self._folder / "journal.jsonl",
            self._chance("client"),
            patience_seconds=size.patience_seconds,
        )
        at = (fleet.api_url, fleet.api_key, self._chance("feed"))
        readers: list[Reader] = [CursorReader(*at), StreamReader(*at)]
        chaos = Chaos(fleet, size.seed, size.kills, size.seconds, self.say, client.has_recovered_since)
        beside = [asyncio.create_task(reader.run()) for reader in readers]
        beside.append(asyncio.create_task(self._report(client, chaos)))
        try:
            began = time.monotonic()
            await self._all_of(chaos.run(), self._load(client, chaos))
            self.result.numbers["seconds under fire"] = round(time.monotonic() - began, 1)
            self.say("everything was answered; waiting for the clock and the feed")
            await self._settle(fleet)
            await client.repeat_some()
            await self._judge(fleet, client, readers)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._sum_up(fleet, client, chaos)
            await client.close()
            for reader in readers:
                await reader.close()

    async def _load(self, client: Client, chaos: Chaos) -> None:
        """All clients; each begins at a point of its own of the chaos, however long that takes on this machine."""
        size, chance = self.size, self._chance("arrivals")

        async def arrive(work: Awaitable[None]) -> None:
            point = chance.random()
            while chaos.progress < point:  # noqa: ASYNC110 - kills are seconds apart
                await asyncio.sleep(1)
            await asyncio.sleep(chance.uniform(0, size.seconds / max(1, size.kills)))
            await work

        async def live(number: int) -> None:
            which = number % (len(STORIES) + (size.commands > 0))
            if which < len(STORIES):
                await STORIES[which](Play(number, client, self.record, size.pace, size.seed))
            else:
                await commands.by_commands(commands.CommandPlay(number, client, self.record, size.pace, size.seed))

        pause = size.pace.think_seconds_max
        cut = commands.batches(size.seed, commands.make(size.seed, size.commands))
        await self._all_of(
            *(arrive(commands.ingest(n, batch, client, self.ledger, size.seed)) for n, batch in enumerate(cut)),
            *(arrive(live(number)) for number in range(size.escrows)),
            *(arrive(save(n, client, self.record, size.seed, pause_seconds_max=pause)) for n in range(size.savers)),
        )

    async def _all_of(self, *works: Awaitable[None]) -> None:
        """Let all of them end; what one of them meets does not stop the others, and is part of the verdict."""
        for met in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(met, NoAnswer | AssertionError):
                self.result.wrong.append(f"{type(met).__name__}: {met}")
            elif isinstance(met, BaseException):
                raise met

    async def _settle(self, fleet: Fleet) -> None:
        """Wait until every deadline has had its effect and every event its place, with a limit."""
        clocked = [escrow.escrow_id for escrow in self.record.escrows if escrow.clock_runs]
        for escrow in self.record.escrows:
            escrow.pass_time()
        deadline = time.monotonic() + SETTLE_SECONDS
        waiting: dict[str, int] = {}
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):  # the last kill may have been a moment ago
                waiting = await asyncio.to_thread(_waiting, fleet.database_url, clocked)
                if not any(waiting.values()):
                    return
            await asyncio.sleep(0.5)
        self.result.wrong.append(f"not settled after {SETTLE_SECONDS:g} s: {waiting}")

    async def _judge(self, fleet: Fleet, client: Client, readers: list[Reader]) -> None:
        record = self.record
        async with asyncio.timeout(VERDICT_SECONDS):
            self._wrong(verdict.answers(client.requests))
            self._wrong(verdict.races(record.races_won))
            self._wrong(await verdict.escrows(client, record.escrows))
            self._wrong(await verdict.trial_balance(client))
            status, said = await asyncio.to_thread(_verify, fleet)
            sealed = re.search(r"entries +([1-9][0-9,]* in [0-9,]+ batches)", said)
            if status != 0 or sealed is None:
                self._wrong([f"ledger verify: {status} {said}"])
            else:
                self.result.numbers["sealed and verified offline"] = sealed[1]
            self._wrong(await _stray(fleet.stack.temporal_address, record.escrows))
            with psycopg.connect(fleet.database_url) as connection:
                rows = connection.execute(commands.LEDGER_COMMANDS).fetchall()
                self._wrong(commands.outcomes(rows, self.ledger.accepted))
                self._wrong(commands.order(rows, self.ledger.accepted))
                self._wrong(verdict.impossible(connection, commands.IMPOSSIBLE))
                moved = commands.book(connection, record)
                books = verdict.books_of(record)
                books.update(moved)
                self._wrong(verdict.balances(connection, books))
                self._wrong(verdict.transfers(connection, record.transfers))
                self._wrong(verdict.kept(connection, client.requests))
                self._wrong(verdict.versions(connection, record.escrows))
                self._wrong(verdict.impossible(connection, verdict.IMPOSSIBLE))
                row = connection.execute("SELECT coalesce(max(position), 0) FROM outbox").fetchone()
                assert row is not None
                for reader in readers:
                    name = type(reader).__name__
                    if not await reader.reach(row[0], READ_SECONDS):
                        self._wrong([f"{name} came only to {reader.after} of {row[0]}"])
                    self._wrong(verdict.feed(connection, name, reader.ids))
                    self._wrong(f"{count} times {fault}" for fault, count in Counter(reader.faults).items())
                    self.result.numbers[f"{name}: events"] = len(reader.ids)
                    self.result.numbers[f"{name}: connections lost"] = reader.failures
        self._wrong(record.surprises)
        self._wrong(self.ledger.surprises)
        self._wrong(f"{count} times {fault}" for fault, count in Counter(client.tally.faults).items())

    def _wrong(self, found: Iterable[str]) -> None:
        self.result.wrong += found

    def _sum_up(self, fleet: Fleet, client: Client, chaos: Chaos) -> None:
        result, tally = self.result, client.tally
        result.kills = dict(Counter(kill.role for kill in chaos.kills))
        result.breaks = dict(chaos.breaks)
        result.retries = dict(sorted(tally.retries.items(), key=lambda entry: -entry[1]))
        for kill in chaos.kills:
            back = recovery(kill, tally.effects)
            if back is not None:
                result.recoveries.setdefault(kill.role, []).append(back)
        for ward in fleet.wards.values():
            for ending in ward.endings:
                name = f"{ending.role} with status {ending.status}:"
                result.endings[name] = result.endings.get(name, 0) + 1
                if not ending.excused:
                    result.wrong.append(f"{ending.role} ended by itself with {ending.status}:\n{ending.log}")
        escrows = self.record.escrows
        result.numbers |= {
            "requests": len(client.requests),
            "attempts": tally.attempts,
            "answers from the store": tally.replayed,
            "escrows": len(escrows),
            "escrows by status": dict(Counter(escrow.status for escrow in escrows)),
            "commands on escrows accepted": sum(escrow.accepted for escrow in escrows),
            "settlement commands": len(self.ledger.accepted),
            "deposits and withdrawals": len(self.record.transfers),
        }

    async def _report(self, client: Client, chaos: Chaos) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            answered = sum(bool(request.answers) for request in client.requests)
            retried = sum(client.tally.retries.values())
            self.say(f"{answered} of {len(client.requests)} answered, {retried} retries, {len(chaos.kills)} kills")

    def _chance(self, name: str) -> random.Random:
        return random.Random(f"{self.size.seed}:{name}")


def _waiting(database_url: str, clocked: list[str]) -> dict[str, int]:
    """What has not had its effect yet, by its kind."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM settlement_commands WHERE finished_at IS NULL),"
            " (SELECT count(*) FROM outbox WHERE position IS NULL),"
            " (SELECT count(*) FROM escrow_milestones m JOIN escrows e USING (tenant_id, escrow_id)"
            " WHERE e.escrow_id = ANY(%s::uuid[]) AND e.closed_at IS NULL AND ("
            " (m.status = 'approved' AND e.inspection_period_seconds IS NOT NULL)"
            " OR (m.status IN ('pending', 'funded') AND coalesce(e.funding_deadline, e.expires_at) IS NOT NULL)))",
            [clocked],
        ).fetchone()
    assert row is not None
    return {"open commands": row[0], "events without a place": row[1], "milestones that the clock owes": row[2]}


def _verify(fleet: Fleet) -> tuple[int, str]:
    """What the ledger's own offline check says: its exit status and its words."""
    command = [sys.executable, "-m", "tools", "ledger", "verify"]
    environment = fleet.stack.child_environment()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=VERIFY_SECONDS
    )
    return done.returncode, done.stdout + done.stderr


async def _stray(address: str, escrows: list[Escrow]) -> list[str]:
    """Workflows that should not be open, or should. Those that just ended are given a while to leave the list."""
    client = await connect(address, "default")
    deadline = time.monotonic() + LISTED_SECONDS
    while True:
        running = {run.id: run.workflow_type async for run in client.list_workflows("ExecutionStatus = 'Running'")}
        stray = list(verdict.workflows(running, escrows))
        if not stray or time.monotonic() > deadline:
            return stray
        await asyncio.sleep(1)
