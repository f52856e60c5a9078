"""The stack that is measured: the real processes, in a folder of their own, on two cores with everything else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from db.engine import Role, create_engine
from kit.temporal import connect
from tests.bench import bare, preload
from tests.bench.client import Http
from tests.bench.meter import Meter
from tests.bench.preload import Scale
from tests.e2e.stack import ROOT, CommandLine
from tools.deployment import Build, make_current
from tools.local.process import free_port, spawn, stop
from tools.local.stack import DEFAULT_TENANT
from workflows.client import EscrowClient
from workflows.escrow import OpenEscrow

CORES = 2
#: What the configuration calls the chain of the section that has one.
CHAIN = "bench"
_CHAINS = """\
[chains.bench]
kind = "evm"
chain_id = 31337
confirmations = 1
poll_seconds = 0.05
[[chains.bench.providers]]
name = "anvil"
url = "http://127.0.0.1:{port}"
"""
_STARTS_AT_ONCE = 20


@dataclass(slots=True)
class Bench:
    """What every section is given."""

    commands: CommandLine
    database_url: str
    tenant: UUID
    client: Client
    http: Http
    engine: AsyncEngine
    meter: Meter
    quick: bool
    #: Where the node is, while there is one.
    chain_port: int
    #: Of the arrivals that the API is to bear, how many come: less for a machine that bears less.
    arrivals_percent: int = 100
    loaded: list[UUID] = field(default_factory=list)
    scale: Scale = field(default_factory=lambda: Scale(0))
    warnings: list[str] = field(default_factory=list)

    @property
    def escrow_client(self) -> EscrowClient:
        """How the API reaches workflows, without the API."""
        return EscrowClient(self.client, "holdfast")

    def window(self, seconds: float) -> float:
        """A measuring time: shorter for a quick look, which proves nothing."""
        return max(2.0, seconds / 4) if self.quick else seconds

    async def grow(self, scale: Scale) -> None:
        """Load what is missing to ``scale``, and start workflows for their share of the escrows."""
        more, more_workflows = scale.escrows - self.scale.escrows, scale.workflows - self.scale.workflows
        if self.scale.factor == 0:
            await asyncio.to_thread(preload.accounts, self.database_url, self.tenant)
        fresh = await asyncio.to_thread(preload.escrows, self.database_url, self.tenant, more)
        wanted = scale.transactions - self.scale.transactions
        await asyncio.to_thread(preload.transactions, self.database_url, self.tenant, wanted)
        gate = asyncio.Semaphore(_STARTS_AT_ONCE)
        await asyncio.gather(*(self._resume(escrow_id, gate) for escrow_id in fresh[:more_workflows]))
        await asyncio.to_thread(preload.settle, self.database_url)
        if not await asyncio.to_thread(preload.caught_up, self.database_url):
            self.warnings.append(f"relay or sealer were still behind the data of {scale.factor}× when it was measured")
        self.loaded += fresh
        self.scale = scale

    async def _resume(self, escrow_id: UUID, gate: asyncio.Semaphore) -> None:
        async with gate:
            opening = OpenEscrow(tenant_id=self.tenant, escrow_id=escrow_id)
            await self.escrow_client.open(opening, summary="loaded before the bench")


@asynccontextmanager
async def running(*, quick: bool) -> AsyncIterator[Bench]:
    """A fresh stack, gone afterwards with its data."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        # Webhooks go to a receiver beside everything else.
        port, chains = free_port(), Path(folder) / "chains.toml"
        chains.write_text(_CHAINS.format(port=port))
        commands = CommandLine(Path(folder), OUTWARD_ALLOW="127.0.0.0/8", CHAINS_FILE=str(chains))
        try:
            await asyncio.to_thread(commands.run, "up", "--detach")
            bench = await _open(commands, quick=quick, chain_port=port)
            try:
                yield bench
            finally:
                bench.http.close()
                await bench.engine.dispose()
        finally:
            await asyncio.to_thread(commands.run, "down", status=None)


async def _open(commands: CommandLine, *, quick: bool, chain_port: int) -> Bench:
    file, key = commands.stack, commands.home.api_key_file.read_text().strip()
    return Bench(
        commands=commands,
        database_url=file.database_url,
        tenant=preload.tenant_named(file.database_url, DEFAULT_TENANT),
        client=await connect(file.temporal_address),
        http=Http(file.api_url, key),
        engine=create_engine(file.database_url, Role.APP, pool_size=20),
        meter=Meter({role: pid for role, pid in file.pids.items() if role != "supervisor"}),
        quick=quick,
        chain_port=chain_port,
    )


@asynccontextmanager
async def bare_worker(bench: Bench) -> AsyncIterator[None]:
    """The baseline's worker, as a process beside the real one, which then has nothing to do."""
    # From this thread: the child dies with the thread that started it.
    process = _spawn_bare(bench)
    bench.meter.add("bare worker", process.pid)
    try:
        await make_current(bench.client, Build(bare.DEPLOYMENT, bare.BUILD))
        yield
    finally:
        bench.meter.remove("bare worker")
        await asyncio.to_thread(stop, process, first=signal.SIGTERM, limit_seconds=20)


def _spawn_bare(bench: Bench) -> subprocess.Popen[bytes]:
    return spawn(
        [sys.executable, "-m", "tests.bench.bare_worker", bench.commands.stack.temporal_address],
        log=bench.commands.home.log("bare-worker"),
        env=bench.commands.environment,
        cwd=ROOT,
    )
