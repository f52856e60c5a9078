"""What the OpenAPI description promises, the served API keeps: schemathesis, over real HTTP, from a fixed seed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.worker import Worker

from kit.settings import ApiSettings
from tests.api.caller import ARBITER, BUYER, SELLER, Caller, ok
from tests.api.served import served

SEED = "20261120"
LIMIT_SECONDS = 400

pytestmark = pytest.mark.timeout(LIMIT_SECONDS)


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
        # It does not end by itself; tests/api/test_streams.py reads it.
        "--exclude-operation-id=stream_events",
        # It would change what every other test computes with; tests/api/test_margin.py adds versions.
        "--exclude-operation-id=add_parameters",
        # What the rules refuse is no fault of the schema: a cursor of another list, a deadline that has passed.
        "--exclude-checks=positive_data_acceptance",
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
        contract = {"chain": "dev", "contract": f"0x{tenant.hex}00000000", "start_block": 100}
        relayer = ok(await service.post("chain/relayers", contract), 201)["relayer_id"]
        (tmp_path / "schemathesis.toml").write_text(f'[parameters]\n"path.relayer_id" = "{relayer}"\n')
        await schemathesis(
            url,
            service.key or "",
            tmp_path,
            "--max-examples=2",
            # It would revoke the key that it uses.
            "--exclude-operation-id=revoke_key",
            # On an endpoint that is there, below.
            "--exclude-path-regex=/webhooks",
        )
        await schemathesis(
            url, service.key or "", tmp_path, "--include-operation-id=revoke_key", "--phases=examples,coverage,fuzzing"
        )


async def test_commands_on_an_escrow_that_is_there(
    settings: ApiSettings, worker: Worker, tenant: UUID, tenants_engine: AsyncEngine, tmp_path: Path
) -> None:
    """As one of its parties, so that a command needs no luck to be given."""
    async with served(settings) as (server, url):
        service = await Caller(server.config.loaded_app, tenant, tenants_engine, None).key_for()
        await service.deposit(BUYER, "1000000")
        parts = [{"title": f"part {number}", "amount": "1000"} for number in range(20)]
        escrow = await service.open(amount=None, milestones=parts, arbiter={"user_id": ARBITER})
        await service.command(escrow["escrow_id"], "fund", BUYER, milestones=list(range(1, 16)))
        deposit = await service.deposit(BUYER, "1")
        transfer = {"from": BUYER, "to": SELLER, "asset": "USDC", "amount": "10", "pending": True}
        pending = ok(await service.post("ledger/transfers", transfer), 201)
        ids = [
            f'"path.escrow_id" = "{escrow["escrow_id"]}"',
            f'"path.transfer_id" = "{pending["transfer_id"]}"',
            f'"path.transaction_id" = "{deposit["transaction_id"]}"',
            f'"path.ref" = "{BUYER}"',
        ]
        (tmp_path / "schemathesis.toml").write_text("\n".join(["[parameters]", *ids]))
        for user in (BUYER, SELLER):
            party = await service.key_for(user_id=user)
            await schemathesis(
                url,
                party.key or "",
                tmp_path,
                "--max-examples=12",
                "--mode=positive",
                "--phases=examples,fuzzing",
                "--include-path-regex=escrow_id|transfer_id|transaction_id|ref",
                "--exclude-operation-id=cancel",  # it would end what the others work on
            )
        moved = await service.get(f"escrows/{escrow['escrow_id']}")
        assert moved.json()["version"] > 4, "commands went well, and were not only refused"


async def test_an_endpoint_that_is_there(
    settings: ApiSettings, worker: Worker, tenant: UUID, tenants_engine: AsyncEngine, tmp_path: Path
) -> None:
    """Nobody listens there: what is sent fails, and is told of."""
    async with served(settings) as (server, url):
        service = await Caller(server.config.loaded_app, tenant, tenants_engine, None).key_for()
        hook = ok(await service.post("webhooks", {"url": "http://127.0.0.1:9/", "event_types": ["escrow.*"]}), 201)
        sent = ok(await service.post(f"webhooks/{hook['subscription_id']}/test"), 202)
        ids = [
            f'"path.subscription_id" = "{hook["subscription_id"]}"',
            f'"path.message_id" = "{sent["message_id"]}"',
        ]
        (tmp_path / "schemathesis.toml").write_text("\n".join(["[parameters]", *ids]))
        await schemathesis(
            url,
            service.key or "",
            tmp_path,
            "--max-examples=4",
            "--phases=examples,coverage,fuzzing",
            "--include-path-regex=/webhooks",
            "--exclude-operation-id=delete_webhook",
        )
        await schemathesis(
            url, service.key or "", tmp_path, "--max-examples=2", "--include-operation-id=delete_webhook"
        )
