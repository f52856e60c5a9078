"""What the OpenAPI description promises, the served API keeps: schemathesis, over real HTTP, from a fixed seed."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import uvicorn
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.worker import Worker

from api.main import create_app
from kit.settings import ApiSettings
from tests.api.caller import ARBITER, BUYER, SELLER, Caller

SEED = "20261120"
LIMIT_SECONDS = 100


@asynccontextmanager
async def served(settings: ApiSettings) -> AsyncIterator[tuple[uvicorn.Server, str]]:
    """The application behind a socket, as the process serves it."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", access_log=False, log_config=None, lifespan="on"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - the server offers nothing to wait for
                await asyncio.sleep(0.01)
        yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def schemathesis(url: str, key: str, folder: Path, *options: str) -> None:
    """Run it as its own process, in a folder of its own; it fails with what it found."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{url}/openapi.json",
        f"--header=X-API-Key: {key}",
        f"--seed={SEED}",
        "--generation-database=none",
        "--request-timeout=20",
        "--no-color",
        "--continue-on-failure",
        "--suppress-health-check=all",
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_no_fault_and_no_undocumented_answer(
    settings: ApiSettings, worker: Worker, tenant: UUID, tenants_engine: AsyncEngine, tmp_path: Path
) -> None:
    async with served(settings) as (server, url):
        service = await Caller(server.config.loaded_app, tenant, tenants_engine, None).key_for()
        await schemathesis(url, service.key or "", tmp_path, "--max-examples=10", "--exclude-operation-id=revoke_key")
