"""Servers that the tools' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from temporalio.client import Client

from kit.temporal import connect
from tools.local.temporal import TemporalDevServer


@pytest.fixture(scope="session")
def dev_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalDevServer]:
    """A Temporal server in memory, without a UI."""
    with TemporalDevServer(None, tmp_path_factory.mktemp("temporal") / "temporal.log", ui_port=None) as server:
        yield server


@pytest.fixture
async def temporal_client(dev_server: TemporalDevServer) -> Client:
    return await connect(dev_server.address)
