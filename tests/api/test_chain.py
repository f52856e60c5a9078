"""Chains over HTTP: what is registered, what was seen of it, and when all is not well."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.gauges import ChainGauges
from db.chain import coverage, rows, sources
from db.engine import tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.chain import RelayerStatus, Source
from domain.identity import Scope
from kit.clock import now
from tests.api.caller import Caller, ok, refused
from tests.api.chain_rows import ESCROW, block_hash, funded, heard, move, seen, source_of

LTC = "rltc1qw508d6qejxtdg4y5r3zarvary0c5xw7k693xs3"


def fresh_address() -> str:
    return f"0x{os.urandom(20).hex()}"


async def register(service: Caller, **changes: Any) -> dict[str, Any]:
    body = {"chain": "dev", "contract": fresh_address(), "start_block": 100} | changes
    made: dict[str, Any] = ok(await service.post("chain/relayers", body), 201)
    return made


@pytest.fixture
async def source(service: Caller, engine: AsyncEngine) -> AsyncIterator[Source]:
    """A relayer of which blocks 100 to 109 are here, with five events; 104 is final, 107 confirmed."""
    made = await source_of(engine, (await register(service))["relayer_id"])
    events = [funded(number, n + 1) for n, number in enumerate((101, 103, 105, 107, 109))]
    await seen(
        engine, made, 100, 109, events, last_sequence=5, confirmed_number=107, finalized_number=104, moved_at=now()
    )
    await heard(engine, made, 109, now())
    yield made
    async with transaction(engine) as connection:
        await sources.set_status(connection, made.source_id, RelayerStatus.OBSERVING)


async def test_a_contract_is_registered_with_its_event_and_its_audit(service: Caller, engine: AsyncEngine) -> None:
    address = fresh_address()
    made = await register(service, contract=address.upper().replace("0X", "0x"), start_block=7)
    assert (made["relayer_id"], made["addresses"]) == (f"dev:{address}", [address])
    assert (made["network"], made["status"], made["settles"], made["head"]) == ("eip155:31337", "following", True, None)
    assert made["cursor"] == {
        "block_number": 6,
        "block_hash": None,
        "block_at": None,
        "last_sequence": 0,
        "moved_at": None,
    }
    async with tenant_transaction(service.engine, service.tenant) as connection:
        [event] = (
            await connection.execute(
                text("SELECT subject, topic, data FROM outbox WHERE type = 'chain.source_registered'")
            )
        ).all()
        audited = await connection.scalar(
            text("SELECT count(*) FROM audit_log WHERE action = 'chain.source_registered'")
        )
    assert (event.subject, event.topic, audited) == (f"relayer:dev:{address}", "settlement.events.v1", 1)
    assert event.data == {
        "relayer_id": f"dev:{address}",
        "chain": "dev",
        "network": "eip155:31337",
        "addresses": [address],
        "start_block": 7,
        "follow_from": 7,
        "settles": True,
    }
    assert ok(await service.get(f"chain/relayers/dev:{address}"))["relayer_id"] == f"dev:{address}"


async def test_the_same_request_registers_once_and_another_is_refused(service: Caller) -> None:
    body = {"chain": "dev", "contract": fresh_address(), "start_block": 1}
    first, again = [ok(await service.post("chain/relayers", body, key="one"), 201) for _ in range(2)]
    assert first == again
    refused(await service.post("chain/relayers", body), 409, "source_taken")


async def test_a_contract_of_another_tenant_is_taken_and_not_seen(service: Caller) -> None:
    stranger = new_id()
    async with transaction(service.engine) as connection:
        await create_tenant(connection, new_tenant=stranger, name=f"stranger-{stranger}")
    other = await Caller(service.app, stranger, service.engine, None).key_for()
    made = await register(service)
    body = {"chain": "dev", "contract": made["addresses"][0], "start_block": 1}
    refused(await other.post("chain/relayers", body), 409, "source_taken")
    refused(await other.get(f"chain/relayers/{made['relayer_id']}"), 404, "relayer_unknown")
    assert ok(await other.get("chain/relayers"))["items"] == []
    assert ok(await other.get("chain/events", relayer_id=made["relayer_id"]))["items"] == []


async def test_addresses_of_interest_are_followed_on_a_utxo_chain(service: Caller) -> None:
    script = f"script:{os.urandom(30).hex()}"
    body = {"chain": "ltc", "addresses": [LTC, script], "start_block": 0}
    made = ok(await service.post("chain/relayers", body), 201)
    assert sorted(made["addresses"]) == sorted([LTC, script])
    assert (made["kind"], made["settles"]) == ("utxo", False)
    refused(await service.post("chain/relayers", body | {"addresses": [script]}), 409, "source_taken")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"chain": "nowhere"}, "chain_unknown", "chain"),
        ({"contract": "0x12"}, "address_invalid", "contract"),
        ({"contract": None}, "addresses_invalid", "contract"),
        ({"addresses": [LTC]}, "addresses_invalid", "contract"),
        ({"follow_from": 99}, "block_range_invalid", "follow_from"),
        ({"chain": "ltc"}, "addresses_invalid", "addresses"),
        ({"chain": "ltc", "contract": None, "addresses": [LTC, LTC]}, "addresses_invalid", "addresses"),
        ({"chain": "ltc", "contract": None, "addresses": [LTC, LTC[:-1]]}, "address_invalid", "addresses.1"),
        ({"chain": "ltc", "contract": None, "addresses": [LTC], "settles": True}, "addresses_invalid", "settles"),
    ],
)
async def test_what_cannot_be_followed_is_refused(
    service: Caller, changes: dict[str, Any], code: str, field: str
) -> None:
    body = {"chain": "dev", "contract": fresh_address(), "start_block": 100} | changes
    refused(await service.post("chain/relayers", body), 422, code, field)


async def test_who_may(service: Caller) -> None:
    body = {"chain": "dev", "contract": fresh_address(), "start_block": 100}
    reader = await service.key_for(scopes=(Scope.CHAIN_READ,))
    refused(await reader.post("chain/relayers", body), 403, "scope_missing")
    refused(await (await service.key_for(scopes=(Scope.CHAIN_WRITE,))).get("chain/relayers"), 403, "scope_missing")
    user = await service.key_for(user_id="alice")
    for path in ("chain/relayers", "chain/relayers/dev:0x", "chain/events", "chain/health"):
        refused(await user.get(path), 403, "service_key_required")
    refused(await user.post("chain/relayers", body), 403, "service_key_required")


async def test_where_a_relayer_stands(service: Caller, source: Source, engine: AsyncEngine) -> None:
    await heard(engine, source, 115, now())
    await move(engine, source, settled_sequence=1)
    found = ok(await service.get(f"chain/relayers/{source.relayer_id}"))
    assert found["watermarks"] == {"seen": 109, "confirmed": 107, "finalized": 104}
    assert (found["lag"]["blocks"], found["lag"]["seconds"]) == (6, 72)
    assert found["lag"]["silent_seconds"] <= 5
    assert found["cursor"]["block_hash"] == f"0x{block_hash(109).hex()}"
    assert found["head"]["number"] == 115
    assert found["settlement"] == {"settled_sequence": 1, "final_sequence": 2, "waiting": 1}
    assert found["gaps"] == {"blocks": 0, "being_filled": 0, "ranges": [], "more": False}
    assert (found["healthy"], found["troubles"], found["last_reorganisation"]) == (True, [], None)
    [listed] = ok(await service.get("chain/relayers", chain="dev", status="following"))["items"]
    assert listed.items() <= {**found, "lag": listed["lag"]}.items()


async def test_the_last_reorganisation_and_the_providers(service: Caller, source: Source, engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        for depth in (1, 3):
            await connection.execute(
                text(
                    "INSERT INTO chain_reorgs (source_id, tenant_id, ancestor_number, depth, old_hash, new_hash,"
                    " events_reverted, below_finalized, providers, found_at) VALUES (:source, :tenant, 106, :depth,"
                    " '\\x01', '\\x02', 2, false, '[\"one\"]', now())"
                ),
                {"source": source.source_id, "tenant": source.tenant_id, "depth": depth},
            )
        await connection.execute(
            text(
                "INSERT INTO chain_providers (chain, provider, status, reason, head_number, status_at, seen_at)"
                " VALUES ('dev', 'one', 'lagging', '4 blocks behind', 105, now(), now())"
                " ON CONFLICT (chain, provider) DO UPDATE SET status = 'lagging'"
            )
        )
    found = ok(await service.get(f"chain/relayers/{source.relayer_id}"))
    assert (found["last_reorganisation"]["depth"], found["last_reorganisation"]["providers"]) == (3, ["one"])
    [provider] = found["providers"]
    assert (provider["provider"], provider["status"], provider["reason"]) == ("one", "lagging", "4 blocks behind")


async def test_events_are_listed_newest_first_and_read_by_cursor(service: Caller, source: Source) -> None:
    page = ok(await service.get("chain/events", relayer_id=source.relayer_id, limit=2))
    assert [event["sequence"] for event in page["items"]] == [5, 4]
    rest = []
    while page["next_cursor"]:
        page = ok(await service.get("chain/events", relayer_id=source.relayer_id, limit=2, cursor=page["next_cursor"]))
        rest += [event["sequence"] for event in page["items"]]
    assert rest == [3, 2, 1]
    newest = ok(await service.get("chain/events", limit=1))["items"][0]
    assert newest["args"] == {
        "sequence": "5",
        "escrow_id": f"0x{ESCROW.hex()}",
        "by": "0x" + "aa" * 20,
        "token": "0x" + "00" * 20,
        "amount": str(10**18),
    }
    assert (newest["asset"], newest["amount"], newest["kind"]) == ("ETH", str(10**18), "Funded")
    assert (newest["finality"], newest["canonical"], newest["escrow_id"]) == ("seen", True, None)


async def test_events_of_several_relayers_follow_one_another(
    service: Caller, source: Source, engine: AsyncEngine
) -> None:
    other = await source_of(engine, (await register(service))["relayer_id"])
    await seen(engine, other, 100, 102, [funded(101, 1), funded(102, 2), funded(102, 3, log=1)])
    found, cursor = [], None
    while True:
        page = ok(await service.get("chain/events", limit=2, **({} if cursor is None else {"cursor": cursor})))
        found += [(event["relayer_id"], event["sequence"]) for event in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [(other.relayer_id, n) for n in (3, 2, 1)] + [(source.relayer_id, n) for n in (5, 4, 3, 2, 1)]


@pytest.mark.parametrize(
    ("filters", "sequences"),
    [
        ({"finality": "finalized"}, [2, 1]),
        ({"finality": "confirmed"}, [4, 3, 2, 1]),
        ({"from_block": 103, "to_block": 107}, [4, 3, 2]),
        ({"kind": "Funded", "subject": f"0x{ESCROW.hex()}"}, [5, 4, 3, 2, 1]),
        ({"kind": "Released"}, []),
        ({"account": "0x" + "AA" * 20, "token": "0x" + "00" * 20}, [5, 4, 3, 2, 1]),
        ({"tx_hash": f"0x{(103).to_bytes(31).hex()}00"}, [2]),
        ({"orphans": "only"}, [7]),
        ({"orphans": "include", "from_block": 109}, [7, 5]),
        ({"escrow_id": str(new_id())}, []),
    ],
)
async def test_events_are_found(
    service: Caller, source: Source, engine: AsyncEngine, filters: dict[str, Any], sequences: list[int]
) -> None:
    async with transaction(engine) as connection:
        await rows.copy_events(connection, source, [replace_fork(funded(109, 7, log=1, fork=1))])
        await connection.execute(
            text("UPDATE chain_events SET canonical = false WHERE source_id = :source AND sequence = 7"),
            {"source": source.source_id},
        )
    found = ok(await service.get("chain/events", **filters))["items"]
    assert [event["sequence"] for event in found] == sequences
    assert {event["finality"] for event in found if event["sequence"] == 7} <= {None}


def replace_fork(event: Any) -> Any:
    return event._replace(tx_hash=b"\xff" * 32)


async def test_an_escrows_events_are_found_by_its_id_here(service: Caller, source: Source, engine: AsyncEngine) -> None:
    escrow = new_id()
    async with transaction(engine) as connection:
        await connection.execute(
            text(
                "INSERT INTO chain_escrows (source_id, tenant_id, onchain_id, escrow_id, status)"
                " VALUES (:source, :tenant, :onchain, :escrow, 'followed')"
            ),
            {"source": source.source_id, "tenant": source.tenant_id, "onchain": ESCROW, "escrow": escrow},
        )
    found = ok(await service.get("chain/events", escrow_id=str(escrow), limit=1))["items"]
    assert [(event["sequence"], event["escrow_id"]) for event in found] == [(5, str(escrow))]


async def test_a_range_and_a_cursor_that_do_not_fit_are_refused(service: Caller, source: Source) -> None:
    refused(await service.get("chain/events", from_block=2, to_block=1), 422, "block_range_invalid", "to_block")
    page = ok(await service.get("chain/events", limit=1))
    refused(await service.get("chain/events", kind="Funded", cursor=page["next_cursor"]), 422, "cursor_invalid")


async def test_health_is_green_and_turns_red_on_lag(service: Caller, source: Source, engine: AsyncEngine) -> None:
    well = ok(await service.get("chain/health"))
    assert [each["relayer_id"] for each in well["relayers"]] == [source.relayer_id]
    await heard(engine, source, 129, now())
    ok(await service.get("chain/health"))
    await heard(engine, source, 130, now())
    problem = refused(await service.get("chain/health"), 503, "chain_unhealthy", source.relayer_id)
    assert [fault["code"] for fault in problem["errors"]] == ["relayer_behind"]
    await heard(engine, source, 109, now() - timedelta(seconds=400))
    problem = refused(await service.get("chain/health"), 503, "chain_unhealthy", source.relayer_id)
    assert [fault["code"] for fault in problem["errors"]] == ["relayer_silent"]
    assert ok(await service.get(f"chain/relayers/{source.relayer_id}"))["healthy"] is False


async def test_health_turns_red_on_a_halt(service: Caller, source: Source, engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await sources.set_status(connection, source.source_id, RelayerStatus.HALTED, "a fork below what is final")
    problem = refused(await service.get("chain/health"), 503, "chain_unhealthy", source.relayer_id)
    assert [fault["code"] for fault in problem["errors"]] == ["relayer_halted"]
    assert "a fork below what is final" in problem["errors"][0]["message"]


async def test_health_turns_red_on_a_gap_that_nobody_fills(
    service: Caller, source: Source, engine: AsyncEngine
) -> None:
    async with transaction(engine) as connection:
        await coverage.uncover(connection, source.source_id, 102, 103)
        await coverage.uncover(connection, source.source_id, 106, 106)
    problem = refused(await service.get("chain/health"), 503, "chain_unhealthy", source.relayer_id)
    assert [fault["code"] for fault in problem["errors"]] == ["relayer_has_gaps"]
    async with tenant_transaction(service.engine, service.tenant) as connection:
        await connection.execute(
            text(
                "INSERT INTO backfill_jobs (tenant_id, job_id, source_id, name, from_block, to_block, chunk_blocks,"
                " status, total_blocks, updated_at) VALUES (:tenant, :job, :source, 'x', 100, :last, 10, 'running', 10,"
                " now())"
            ),
            {"tenant": service.tenant, "job": new_id(), "source": source.source_id, "last": 104},
        )
    refused(await service.get("chain/health"), 503, "chain_unhealthy")
    found = ok(await service.get(f"chain/relayers/{source.relayer_id}"))["gaps"]
    assert (found["blocks"], found["being_filled"], found["more"]) == (3, 2, False)
    assert found["ranges"] == [{"from_block": 102, "to_block": 103}, {"from_block": 106, "to_block": 106}]
    async with transaction(engine) as connection:
        await coverage.cover(connection, source.source_id, 106, 106)
    ok(await service.get("chain/health"))


async def test_what_stands_here_is_in_the_metrics_too(source: Source, engine: AsyncEngine) -> None:
    registry = CollectorRegistry()
    gauges = ChainGauges(engine, registry=registry)
    await heard(engine, source, 121, now())
    await gauges.read()
    labels = {"chain": "dev", "relayer": source.relayer_id}
    figures = {
        name: registry.get_sample_value(f"holdfast_chain_{name}", labels)
        for name in ("head_block", "block", "finalized_block", "lag_blocks", "lag_seconds", "gap_blocks", "halted")
    }
    assert figures == {
        "head_block": 121,
        "block": 109,
        "finalized_block": 104,
        "lag_blocks": 12,
        "lag_seconds": 144,
        "gap_blocks": 0,
        "halted": 0,
    }


async def test_a_relayer_is_paused_and_resumed_with_its_audit(service: Caller, source: Source) -> None:
    path = f"chain/relayers/{source.relayer_id}"
    paused, again = [ok(await service.post(f"{path}/pause", {"actor": "olga"}, key="stop")) for _ in range(2)]
    assert (paused["status"], paused["relayer_id"]) == ("paused", source.relayer_id)
    assert paused == again
    refused(await service.post(f"{path}/pause"), 409, "relayer_not_running")
    assert ok(await service.get("chain/relayers", status="paused"))["items"][0]["relayer_id"] == source.relayer_id
    assert ok(await service.post(f"{path}/resume"))["status"] == "following"
    async with tenant_transaction(service.engine, service.tenant) as connection:
        audited = await connection.execute(
            text("SELECT action, actor_user, request_id FROM audit_log WHERE action ~ '^relayer' ORDER BY audit_id")
        )
        done = [(row.action, row.actor_user, row.request_id is not None) for row in audited]
    assert done == [("relayer.paused", "olga", True), ("relayer.resumed", None, True)]


async def test_a_rewind_takes_back_what_is_not_final(service: Caller, source: Source) -> None:
    path = f"chain/relayers/{source.relayer_id}/rewind"
    refused(await service.post(path, {"to_block": 103}), 409, "rewind_below_finalized", "to_block")
    refused(await service.post(path, {"to_block": 110}), 409, "block_not_reached", "to_block")
    refused(await service.post(path, {}), 422, "input_invalid", "to_block")
    after = ok(await service.post(path, {"to_block": 105}))
    assert (after["cursor"]["block_number"], after["cursor"]["last_sequence"]) == (105, 3)
    assert after["watermarks"] == {"seen": 105, "confirmed": 105, "finalized": 104}
    left = ok(await service.get("chain/events", orphans="only"))["items"]
    assert [event["sequence"] for event in left] == [5, 4]
    async with tenant_transaction(service.engine, service.tenant) as connection:
        told = await connection.execute(
            text("SELECT data FROM outbox WHERE type = 'chain.event_reverted' ORDER BY outbox_id")
        )
        assert [row.data["sequence"] for row in told] == [5, 4]


async def test_only_a_relayer_of_ones_own_is_asked_for_anything(service: Caller, source: Source) -> None:
    for name, body in (("pause", {}), ("resume", {}), ("rewind", {"to_block": 1})):
        refused(await service.post(f"chain/relayers/dev:0x00/{name}", body), 404, "relayer_unknown")
        reader = await service.key_for(scopes=(Scope.CHAIN_READ,))
        refused(await reader.post(f"chain/relayers/{source.relayer_id}/{name}", body), 403, "scope_missing")
        user = await service.key_for(user_id="alice")
        refused(await user.post(f"chain/relayers/{source.relayer_id}/{name}", body), 403, "service_key_required")
