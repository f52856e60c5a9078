"""The API over the run's real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
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


@pytest.fixture(scope="session")
def settings(database_url: str, temporal_server: TemporalDevServer) -> ApiSettings:
    """Settings for the run's servers."""
    return ApiSettings(
        database_url=database_url,
        temporal_address=temporal_server.address,
        temporal_task_queue=TASK_QUEUE,
        database_pool_size=10,
        outward_allow="127.0.0.0/8",
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
