from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowExecutionStatus

from kit.temporal import connect
from tools.local.http import http_ok
from tools.local.process import wait_until
from tools.local.temporal import TemporalDevServer, TemporalError


async def test_workflows_survive_a_kill_and_a_stop(tmp_path: Path) -> None:
    server = TemporalDevServer(tmp_path / "temporal.db", tmp_path / "temporal.log")
    with server:
        client = await connect(server.address)
        await client.start_workflow("NobodyRunsThis", id="kept", task_queue="none")
        server.kill()
        server.start()
        assert server.ui_url is not None
        assert wait_until(lambda: http_ok(str(server.ui_url)), limit_seconds=10)
    with server:
        client = await connect(server.address)
        description = await client.get_workflow_handle("kept").describe()
        assert description.status == WorkflowExecutionStatus.RUNNING


async def test_closed_runs_are_kept_for_a_month(temporal_client: Client) -> None:
    request = DescribeNamespaceRequest(namespace=temporal_client.namespace)
    answer = await temporal_client.workflow_service.describe_namespace(request)
    assert answer.config.workflow_execution_retention_ttl.ToTimedelta().days == 30


def test_a_server_is_not_taken_for_another_on_its_port(tmp_path: Path, dev_server: TemporalDevServer) -> None:
    second = TemporalDevServer(None, tmp_path / "temporal.log", port=dev_server.port, ui_port=None)
    with pytest.raises(TemporalError, match="address already in use"):
        second.start()


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "a-folder"
    folder.mkdir()
    server = TemporalDevServer(folder, tmp_path / "temporal.log", ui_port=None)
    with pytest.raises(TemporalError, match=r"(?s)did not start; the end of .*failed starting server"):
        server.start()
