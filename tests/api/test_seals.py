"""Checkpoints and proofs over HTTP, checked with nothing but the answers and the key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.sealing.sealer import Sealer, Signer
from domain.alerts.model import Channel
from domain.sealing.merkle import leaf_hash, root_of_inclusion
from domain.sealing.notes import read
from kit.signing import SigningKey, verify
from tests.alerting import Alerting
from tests.api.caller import BUYER, SELLER, Caller, ok, refused
from tests.polling import eventually

KEY = SigningKey.generate()


@pytest.fixture(scope="module")
async def sealing(engine: AsyncEngine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    """A sealer at work on the run's ledger, one checkpoint after the other."""
    folder: Path = tmp_path_factory.mktemp("seals")
    sealer = Sealer(engine, Signer(KEY, folder, "test", every_seconds=0.2), seal_seconds=0.1, batch_entries=500)
    running = asyncio.create_task(sealer.run())
    yield
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def proof_of(caller: Caller, transaction_id: str) -> dict[str, object]:
    for _ in range(400):
        answer = await caller.get(f"ledger/transactions/{transaction_id}/proof")
        if answer.status_code == 200:
            found: dict[str, object] = answer.json()
            return found
        assert (answer.status_code, answer.json()["code"]) == (409, "not_sealed_yet")
        await asyncio.sleep(0.05)
    raise AssertionError("no checkpoint covered the transaction in 20 seconds")


async def test_a_transaction_is_shown_to_be_under_a_signed_root(service: Caller, sealing: None) -> None:
    deposits = [await service.deposit(BUYER, str(amount)) for amount in (1, 2, 3)]
    for made in deposits:
        proof = await proof_of(service, made["transaction_id"])
        checkpoint = proof["checkpoint"]
        signed = read(checkpoint["note"], KEY.public, verify)  # type: ignore[index]
        batch = str(proof["batch"])
        in_batch = root_of_inclusion(
            bytes.fromhex(str(proof["leaf"])),
            int(str(proof["entry_index"])),
            int(str(proof["entry_count"])),
            [bytes.fromhex(node) for node in proof["entry_path"]],  # type: ignore[attr-defined]
        )
        assert in_batch is not None
        assert in_batch.hex() == batch.rpartition("|")[2]
        in_tree = root_of_inclusion(
            leaf_hash(batch.encode()),
            int(str(proof["batch_index"])),
            signed.size,
            [bytes.fromhex(node) for node in proof["batch_path"]],  # type: ignore[attr-defined]
        )
        assert in_tree == signed.root


async def test_checkpoints_are_listed_the_newest_first(service: Caller, sealing: None) -> None:
    for amount in ("1", "2"):
        await proof_of(service, (await service.deposit(BUYER, amount))["transaction_id"])
    first = ok(await service.get("ledger/checkpoints", limit=1))
    rest = ok(await service.get("ledger/checkpoints", limit=200, cursor=first["next_cursor"]))
    sizes = [item["tree_size"] for item in first["items"] + rest["items"]]
    assert len(sizes) >= 2
    assert sizes == sorted(set(sizes), reverse=True)
    newest = first["items"][0]
    assert read(newest["note"], KEY.public, verify).size == newest["tree_size"]
    assert newest["verifier_key"].startswith("test/ledger+")


async def test_a_proof_is_for_those_who_may_see_the_transaction(service: Caller, sealing: None) -> None:
    made = (await service.deposit(BUYER, "1"))["transaction_id"]
    await proof_of(await service.key_for(user_id=BUYER), made)
    stranger = await service.key_for(user_id=SELLER)
    refused(await stranger.get(f"ledger/transactions/{made}/proof"), 404, "transaction_unknown")


async def test_an_alert_is_shown_to_have_been_sent(
    service: Caller, sealing: None, tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    """Every row of its log, with the way of its hash to a signed root."""
    alerting = Alerting(tenants_engine, tenant)
    await alerting.contact(Channel.EMAIL)
    await alerting.happen("margin_warning")
    [told] = await alerting.until(lambda found: bool(found) and found[0].delivered_at is not None)
    path = f"alerts/{told.notification_id}/proof"

    async def complete() -> bool:
        return bool(ok(await service.get(path))["complete"])

    await eventually(complete)
    shown = ok(await service.get(path))
    assert [row["phase"] for row in shown["attempts"]] == ["begun", "ended"]
    for row in shown["attempts"]:
        proof = row["proof"]
        signed = read(proof["checkpoint"]["note"], KEY.public, verify)
        path_in_batch = [bytes.fromhex(node) for node in proof["entry_path"]]
        leaf = bytes.fromhex(proof["leaf"])
        in_batch = root_of_inclusion(leaf, proof["entry_index"], proof["entry_count"], path_in_batch)
        assert in_batch is not None
        assert (in_batch.hex(), proof["batch"].split("|")[1]) == (proof["batch"].rpartition("|")[2], "alerts")
        path_in_tree = [bytes.fromhex(node) for node in proof["batch_path"]]
        batch = leaf_hash(proof["batch"].encode())
        assert root_of_inclusion(batch, proof["batch_index"], signed.size, path_in_tree) == signed.root
    newest = ok(await service.get("alerts/checkpoints", limit=1))["items"][0]
    assert newest["verifier_key"].startswith("test/alerts+")
    stranger = await service.key_for(user_id=SELLER)
    refused(await stranger.get(path), 404, "alert_unknown")
