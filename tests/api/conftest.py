"""The API over the run's real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.worker import Worker

from api.main import create_app
from kit.settings import ApiSettings
from tests.api.caller import Caller
from tests.desk import TASK_QUEUE
from tools.local.temporal import TemporalDevServer

CHAINS = """
[chains.dev]
kind = "evm"
chain_id = 31337
lag_blocks_max = 20
lag_seconds_max = 300
providers = [{name = "one", url = "http://127.0.0.1:9"}]
tokens = {"0x0000000000000000000000000000000000000000" = {asset = "ETH", decimals = 18}}

[chains.ltc]
kind = "utxo"
genesis_hash = "530827f38f93b43ed12af0b3ad25a288dc02ed74d6d7857862df51fc56c416f9"
asset = "LTC"
providers = [{name = "one", url = "http://127.0.0.1:9"}]
"""


@pytest.fixture(scope="session")
def chains_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chains; nobody is at their nodes' addresses."""
    file = tmp_path_factory.mktemp("chains") / "chains.toml"
    file.write_text(CHAINS)
    return file


@pytest.fixture(scope="session")
def settings(database_url: str, temporal_server: TemporalDevServer, chains_file: Path) -> ApiSettings:
    """Settings for the run's servers."""
    return ApiSettings(
        database_url=database_url,
        temporal_address=temporal_server.address,
        temporal_task_queue=TASK_QUEUE,
        database_pool_size=10,
        outward_allow="127.0.0.0/8",
        chains_file=chains_file,
    )


@pytest.fixture(scope="session")
async def app(settings: ApiSettings, worker: Worker) -> AsyncIterator[FastAPI]:
    """The application, started, with a worker behind it."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def service(app: FastAPI, tenant: UUID, tenants_engine: AsyncEngine) -> Caller:
    """A service key of the test's tenant, with every scope."""
    return await Caller(app, tenant, tenants_engine, None).key_for()


@pytest.fixture
def nobody(app: FastAPI, tenant: UUID, tenants_engine: AsyncEngine) -> Caller:
    """A caller without a key."""
    return Caller(app, tenant, tenants_engine, None)
