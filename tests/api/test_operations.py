"""Probes, metrics, request ids, limits, and an API whose servers are down."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.worker import Worker

from api.auth import fresh_key
from api.main import create_app
from api.middleware import MAX_BODY_BYTES
from kit.settings import ApiSettings
from tests.api.caller import Caller, escrow_body, ok, refused
from tests.cable import Wire

ROOT = Path(__file__).resolve().parents[2]


async def test_probes(nobody: Caller) -> None:
    assert ok(await nobody.get("/healthz")) == {"status": "ok"}
    assert ok(await nobody.get("/readyz")) == {"status": "ready", "checks": {"postgres": "ok", "temporal": "ok"}}


async def test_metrics_count_by_route_not_by_path(service: Caller) -> None:
    escrow = await service.open()
    await service.get(f"escrows/{escrow['escrow_id']}")
    await service.get("/nowhere/at/all")
    text = (await service.get("/metrics")).text
    assert 'holdfast_http_requests_total{method="GET",route="/api/v1/escrows/{escrow_id}",status="200"}' in text
    assert 'route="unmatched",status="404"' in text
    assert "holdfast_http_request_duration_seconds_bucket" in text
    assert escrow["escrow_id"] not in text
    assert "nowhere" not in text


async def test_a_request_keeps_a_sane_id_and_gets_one_otherwise(service: Caller) -> None:
    given = await service.send("GET", "assets", headers={"X-Request-ID": "trace-1/a.b"})
    assert given.headers["x-request-id"] == "trace-1/a.b"
    for insane in ("", "a b", "x" * 129, "<script>"):
        made = (await service.send("GET", "assets", headers={"X-Request-ID": insane})).headers["x-request-id"]
        assert len(made) == 32
    response = await service.send("POST", "escrows", escrow_body(), headers={"X-Request-ID": "trace-2"})
    (entry,) = ok(await service.get(f"escrows/{response.json()['escrow_id']}/timeline"))["items"]
    assert entry["request_id"] == "trace-2"


async def test_log_lines_carry_who_and_what(service: Caller) -> None:
    escrow = await service.open()
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await service.send(
            "POST", f"escrows/{escrow['escrow_id']}/cancel", {"actor": "alice"}, headers={"X-Request-ID": "r-1"}
        )
    line = next(line for line in lines if line["event"] == "request")
    assert line["request_id"] == "r-1"
    assert line["tenant_id"] == str(service.tenant)
    assert line["workflow_id"] == escrow["workflow_id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/api/v1/escrows/{escrow_id}/cancel", 200)
    assert service.key is not None
    assert service.key not in json.dumps(lines, default=str)


async def test_what_is_nowhere_or_not_so_is_a_problem(service: Caller) -> None:
    refused(await service.get("/nowhere"), 404, "not_found")
    refused(await service.get("escrows/"), 404, "not_found")
    wrong = await service.send("PUT", "escrows", {})
    refused(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 422, "body_invalid"),
        (b'{"a": NaN}', 422, "body_invalid"),
        (b'{"a": ' + b"9" * 5000 + b"}", 422, "body_invalid"),
        (b"[" * 100_000, 422, "body_invalid"),
        (b"\xff", 422, "body_invalid"),
        (b"", 422, "input_invalid"),
        (b"null", 422, "input_invalid"),
        (b"[]", 422, "input_invalid"),
        (b'"text"', 422, "input_invalid"),
        (b'{"asset": "\\ud800"}', 422, "input_invalid"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large"),
    ],
)
async def test_bodies_that_are_none(service: Caller, body: bytes, status: int, code: str) -> None:
    refused(await service.post("escrows", body), status, code)


async def test_a_body_is_json_or_nothing(service: Caller) -> None:
    body = json.dumps(escrow_body()).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        response = await service.send("POST", "escrows", body, headers={"Content-Type": kind})
        refused(response, 415, "content_type_unsupported")
    for kind in ("application/json; charset=utf-8", "application/vnd.shop+json"):
        ok(await service.send("POST", "escrows", body, headers={"Content-Type": kind}), 201)


async def test_a_body_that_grows_too_long_is_stopped(service: Caller) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b" " * 65_536

    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        headers = {"X-API-Key": service.key or "", "Content-Type": "application/json"}
        response = await client.post("/api/v1/escrows", content=endless(), headers=headers)
    refused(response, 413, "body_too_large")
    assert taken <= MAX_BODY_BYTES // 65_536 + 2


async def test_a_sender_that_left_is_no_fault_of_ours(service: Caller) -> None:
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    headers = [(b"x-api-key", (service.key or "").encode()), (b"content-length", b"10")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/v1/escrows",
        "raw_path": b"/api/v1/escrows",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("api.test", 80),
    }
    with structlog.testing.capture_logs() as lines:
        await service.app(scope, receive, send)
    assert sent == []
    assert [(line["event"], line.get("status")) for line in lines] == [("request", 499)]


async def test_a_bug_tells_no_internals(service: Caller, settings: ApiSettings) -> None:
    unstarted = create_app(settings)  # so every route meets a missing part
    with structlog.testing.capture_logs() as lines:
        response = await Caller(unstarted, service.tenant, service.engine, service.key).get("assets")
    assert ("request failed", True) in {(line["event"], line.get("exc_info", False)) for line in lines}
    problem = refused(response, 500, "internal_error")
    assert "Traceback" not in response.text
    assert "services" not in problem["detail"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def stranded(settings: ApiSettings, tenant: UUID, tenants_engine: AsyncEngine) -> AsyncIterator[Caller]:
    """An API whose Temporal is down, with a key that works."""
    app = create_app(settings.model_copy(update={"temporal_address": f"127.0.0.1:{free_port()}"}))
    async with app.router.lifespan_context(app):
        yield await Caller(app, tenant, tenants_engine, None).key_for()


async def test_without_temporal_reads_go_on(stranded: Caller, service: Caller) -> None:
    escrow = await service.open()
    problem = refused(await stranded.get("/readyz"), 503, "not_ready", "temporal")
    assert "postgres" not in problem["detail"]
    assert ok(await stranded.get("/healthz"))
    assert ok(await stranded.get(f"escrows/{escrow['escrow_id']}")) == escrow
    for response in (
        await stranded.get(f"escrows/{escrow['escrow_id']}/waiting"),
        await stranded.post(f"escrows/{escrow['escrow_id']}/cancel", {"actor": "alice"}),
    ):
        refused(response, 503, "unavailable")
        assert int(response.headers["retry-after"]) > 0


async def test_what_was_unavailable_may_be_tried_again_at_once(stranded: Caller, service: Caller) -> None:
    for _ in range(2):
        refused(await stranded.post("escrows", escrow_body(), key="k"), 503, "unavailable")
    ok(await service.post("escrows", escrow_body(), key="k"), 201)
    assert len(ok(await service.get("escrows"))["items"]) == 1


async def test_a_connection_to_temporal_that_breaks_is_an_absence_and_no_bug(
    settings: ApiSettings, tenant: UUID, tenants_engine: AsyncEngine, worker: Worker
) -> None:
    host, _, port = settings.temporal_address.rpartition(":")
    async with Wire(host, int(port)) as wire:
        app = create_app(settings.model_copy(update={"temporal_address": f"127.0.0.1:{wire.port}"}))
        async with app.router.lifespan_context(app):
            caller = await Caller(app, tenant, tenants_engine, None).key_for()
            ok(await caller.post("escrows", escrow_body(), key="before"), 201)
            wire.cut()
            refused(await caller.post("escrows", escrow_body(), key="k"), 503, "unavailable")
            wire.mend()
            ok(await caller.post("escrows", escrow_body(), key="k"), 201)


async def test_without_postgres_it_starts_and_says_so(settings: ApiSettings, tenant: UUID) -> None:
    app = create_app(settings.model_copy(update={"database_url": f"postgresql://x@127.0.0.1:{free_port()}/x"}))
    async with app.router.lifespan_context(app):
        caller = Caller(app, tenant, None, fresh_key())  # type: ignore[arg-type]
        refused(await caller.get("/readyz"), 503, "not_ready", "postgres")
        response = await caller.get("assets")
        refused(response, 503, "unavailable")
        assert "127.0.0.1" not in response.text


@pytest.mark.parametrize("missing", ["DATABASE_URL", "TEMPORAL_ADDRESS"])
def test_without_its_settings_it_refuses_to_start(missing: str) -> None:
    environment = {"DATABASE_URL": "postgresql://x@127.0.0.1/x", "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    del environment[missing]
    done = run_api(environment)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"configuration: {missing} is not set"]


def run_api(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """An API process on a free port, with nothing behind it."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"postgresql://x@127.0.0.1:{free_port()}/x",
        "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
        "API_PORT": "0",
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "api"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    yield started
    if started.poll() is None:
        started.kill()
    started.communicate()


def test_the_process_serves_and_stops(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    line = next(json.loads(line) for line in process.stderr if "listening" in line)
    assert line["service"] == "api"
    answer = httpx.get(f"{line['url']}/healthz", timeout=30)  # the socket listens, so this waits for the start
    assert answer.json() == {"status": "ok"}
    assert httpx.get(f"{line['url']}/readyz").status_code == 503
    assert httpx.get(line["docs"]).status_code == 200
    process.terminate()
    assert process.wait(timeout=30) == 0
