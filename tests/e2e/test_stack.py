"""The stack while it runs: what it tells, what it survives, who can run beside it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import CommandLine, pids_in_file, running
from tests.npm.programs import anvil
from tools.local.http import http_ok
from tools.local.postgres import EmbeddedPostgres
from tools.local.process import wait_until
from tools.local.temporal import TemporalDevServer
from tools.prices import STARTING

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    with running(CommandLine(tmp_path_factory.mktemp("stack") / "home")) as commands:
        yield commands


def test_it_says_how_to_reach_it(up: CommandLine) -> None:
    stack = up.stack
    assert up.ready()
    assert set(stack.pids) == {"supervisor", "postgres", "temporal", "worker", "api"}
    assert http_ok(f"{stack.api_url}/docs")
    assert http_ok(str(stack.temporal_ui_url))
    assert Path(stack.api_key_file).stat().st_mode & 0o777 == 0o600
    with up.http() as client:
        assert client.get("/api/v1/escrows").json()["items"] == []
    assert httpx.get(f"{stack.api_url}/api/v1/escrows", timeout=10).status_code == 401


def test_up_again_finds_it_running(up: CommandLine) -> None:
    before = pids_in_file(up.home)
    said = up.run("up", "--detach")
    assert "running here already" in said
    assert up.stack.api_url in said
    assert pids_in_file(up.home) == before
    assert "worker" in up.run("status")


def test_the_demo_plays_and_the_books_balance(up: CommandLine) -> None:
    told = up.run("demo")
    assert "the escrow is completed" in told
    assert "balanced: everything that came in is with somebody" in told
    with up.http() as client:
        assert client.get("/api/v1/ledger/trial-balance").json()["balanced"] is True


def test_the_main_job_on_a_chain_through_a_reorganisation(up: CommandLine) -> None:
    anvil()
    told = up.run("demo-chain")
    assert "back to block" in told
    assert "MARGIN CALL" in told
    assert "16 events, none missing, none twice" in told
    assert "0.2 ETH are in the contract, and in the ledger's mirror of it" in told
    with up.http() as client:
        (relayer,) = client.get("/api/v1/chain/relayers").json()["items"]
        assert (relayer["status"], relayer["cursor"]["last_sequence"]) == ("paused", 16)
        found = client.get("/api/v1/chain/events", params={"orphans": "include", "limit": 200}).json()["items"]
        stands = [event for event in found if event["canonical"]]
        assert sorted(event["sequence"] for event in stands) == list(range(1, 17))
        assert {event["outcome"] for event in stands} == {"settled"}
        left = {event["consumer_id"] for event in found if not event["canonical"]}
        assert len(left) == 3
        assert left <= {event["consumer_id"] for event in stands}, "the same transactions, mined again"
        assert client.get("/api/v1/ledger/trial-balance").json()["balanced"] is True


def test_there_are_prices_at_once_and_an_operators_word_reaches_every_reader(up: CommandLine) -> None:
    with up.http() as client:

        def prices() -> dict[str, Any]:
            return {each["asset"]: each for each in client.get("/api/v1/prices").json()["items"]}

        assert {asset: each["mid"] for asset, each in prices().items()} == STARTING
        assert all(each["confirmed"] for each in prices().values())
        up.run("prices", "set", "ETH=3001.25")
        assert wait_until(lambda: bool(prices()["ETH"]["mid"] == "3001.25"), limit_seconds=30), "by the schedule"
        page = client.get("/api/v1/events", params={"topic": "market.prices.v1", "limit": 200}).json()["items"]
    ticks = [each["data"]["tick"] for each in page if each["type"] == "prices.ticked"]
    assert ticks == sorted(set(ticks))
    last = [each["data"] for each in page if each["subject"] == "price:ETH"][-1]
    assert (last["mid"], last["tick"], last["confirmed"]) == ("3001.25", ticks[-1], True)


def test_a_request_is_followed_from_the_api_to_its_step(up: CommandLine) -> None:
    with up.http() as client:
        sent = client.post(
            "/api/v1/accounts/alice/deposits",
            json={"asset": "USDC", "amount": "1"},
            headers={"X-Request-ID": "follow-me"},
        )
        workflow_id = f"transfer:{sent.json()['transaction_id']}"

    def logged(role: str, message: str) -> list[dict[str, str]]:
        lines = [json.loads(line) for line in up.home.log(role).read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("request_id") == "follow-me" and line["event"] == message]

    assert wait_until(lambda: bool(logged("worker", "step done") and logged("api", "request")), limit_seconds=10)
    step, request = logged("worker", "step done")[0], logged("api", "request")[0]
    assert step["workflow_id"] == request["workflow_id"] == workflow_id
    assert step["tenant_id"] == request["tenant_id"]


@pytest.mark.parametrize("role", ["worker", "api", "temporal", "postgres"])
def test_what_dies_is_restarted_and_logged(up: CommandLine, role: str) -> None:
    victim = pids_in_file(up.home)[role]
    os.kill(victim, signal.SIGKILL)
    assert wait_until(lambda: pids_in_file(up.home)[role] != victim, limit_seconds=30)
    assert wait_until(up.ready, limit_seconds=30, pause_seconds=0.2)
    assert f"{role} (pid {victim}) was ended by SIGKILL; restarting" in up.home.log("supervisor").read_text()
    with up.http() as client:
        answered = client.post("/api/v1/accounts/alice/deposits", json={"asset": "USDC", "amount": "1"})
        assert answered.is_success, answered.text


def test_another_one_runs_beside_it_on_servers_of_ones_own(up: CommandLine, tmp_path: Path) -> None:
    with (
        EmbeddedPostgres(tmp_path / "pg", database="elsewhere") as postgres,
        TemporalDevServer(None, tmp_path / "temporal.log") as temporal,
    ):
        commands = CommandLine(
            tmp_path / "home",
            DATABASE_URL=postgres.url,
            TEMPORAL_ADDRESS=temporal.address,
            TEMPORAL_UI_URL=str(temporal.ui_url),
        )
        with running(commands):
            assert set(commands.stack.pids) == {"supervisor", "worker", "api"}
            assert commands.stack.database_url == postgres.url
            assert commands.stack.temporal_address == temporal.address
            assert commands.stack.temporal_ui_url == temporal.ui_url
            assert commands.ready()
            assert up.ready()
            assert up.stack.api_url != commands.stack.api_url
            with commands.http() as client:
                assert client.get("/api/v1/accounts/alice/balances").json().get("items", []) == []
                key = {"X-API-Key": client.headers["X-API-Key"]}
            assert httpx.get(f"{up.stack.api_url}/api/v1/escrows", headers=key, timeout=10).status_code == 401
        assert not (commands.home.root / "postgres").exists()
        assert postgres.ready()
        assert temporal.ready()
    assert up.ready()
