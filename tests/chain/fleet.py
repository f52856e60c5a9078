"""Processes of workers that follow a chain; see ``worker_process``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from db.ids import new_id
from tools.local.temporal import TemporalDevServer

ROOT = Path(__file__).resolve().parents[2]
DEATH_LIMIT_SECONDS = 40.0


class Fleet:
    """Processes of workers of one queue, and the source that they follow."""

    def __init__(self, server: TemporalDevServer, database_url: str, node_url: str) -> None:
        self.queue = f"chain-{new_id().hex[-8:]}"
        self.chain = self.queue
        self._program = [sys.executable, "-m", "tests.chain.worker_process", server.address, self.queue, database_url]
        self._node_url = node_url

    @asynccontextmanager
    async def worker(self, point: str = "never") -> AsyncIterator[asyncio.subprocess.Process]:
        """A process that is ready; what still lives at the end is killed."""
        process = await asyncio.create_subprocess_exec(
            *self._program, self.chain, self._node_url, point, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(DEATH_LIMIT_SECONDS):
                await process.stdout.readuntil(b"ready\n")
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
