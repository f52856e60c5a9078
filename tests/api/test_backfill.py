"""Backfill through the API: jobs of ours over a chain in memory, and jobs that run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from db.ids import new_id
from domain.identity import Scope
from tests.api.caller import Caller, ok, refused
from tests.chain.memory import CHAIN, MemoryChain, MemoryDesk, followed
from tests.chain.model import CHAINS
from tests.polling import eventually

START, STATUS = "monitoring/backfill/start", "monitoring/backfill/status"
PROGRESS = "monitoring/backfill/progress"


@pytest.fixture(scope="module")
def chain() -> Iterator[MemoryDesk]:
    """What the run's worker fills from."""
    desk = MemoryDesk(MemoryChain(300))
    CHAINS[CHAIN] = desk
    yield desk
    del CHAINS[CHAIN]


@pytest.fixture
async def relayer(service: Caller, chain: MemoryDesk) -> str:
    """The id of a relayer of the caller's tenant, whose contract begins at block 10."""
    chain.open.set()
    chain.held_from = None
    return (await followed(service.engine, service.tenant, start_block=10)).relayer_id


async def until(service: Caller, job_id: str, status: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update(ok(await service.get(f"monitoring/backfill/{job_id}")))
        return bool(found["status"] == status)

    await eventually(there)
    return found


async def test_a_job_is_started_and_seen_until_it_is_complete(service: Caller, relayer: str) -> None:
    body = {"relayer_id": relayer, "from_block": 20, "to_block": 119, "chunk_blocks": 30, "actor": "olga"}
    answer = await service.post(START, body, key="one")
    begun = ok(answer, 202)
    assert answer.headers["location"] == f"/api/v1/monitoring/backfill/{begun['job_id']}"
    assert (begun["name"], begun["total_blocks"], begun["elsewhere"]) == (relayer, 100, False)
    assert ok(await service.post(START, body, key="one"), 202)["job_id"] == begun["job_id"]
    done = await until(service, begun["job_id"], "completed")
    assert (done["share_covered"], done["events_written"], done["error"]) == ("1.0000", 300, None)
    assert done["verification"]["agrees"] is True
    again = ok(await service.post(START, body, key="two"), 202)
    assert (await until(service, again["job_id"], "completed"))["known_blocks"] == 100


async def test_an_operator_tells_a_job_what_to_do(service: Caller, relayer: str, chain: MemoryDesk) -> None:
    chain.open.clear()
    chain.held_from = 100
    job_id = ok(await service.post(START, {"relayer_id": relayer, "to_block": 299}), 202)["job_id"]
    path = f"monitoring/backfill/{job_id}"
    await until(service, job_id, "running")
    refused(await service.post(f"{path}/resume", {}), 409, "job_not_paused")
    paused = ok(await service.post(f"{path}/pause", {"actor": "olga"}, key="p"))
    assert (paused["status"], paused["from_block"]) == ("paused", 10)
    assert ok(await service.post(f"{path}/pause", {"actor": "olga"}, key="p")) == paused
    assert ok(await service.post(f"{path}/resume", {}))["status"] == "running"
    assert ok(await service.post(f"{path}/cancel", {}))["status"] == "cancelled"
    refused(await service.post(f"{path}/pause", {}), 409, "job_over")
    chain.open.set()
    assert ok(await service.post(f"{path}/retry", {}))["attempt"] == 2
    await until(service, job_id, "completed")
    refused(await service.post(f"{path}/retry", {}), 409, "job_not_failed")


async def test_what_makes_no_sense_is_refused(service: Caller, relayer: str) -> None:
    refused(await service.post(START, {"relayer_id": "mem:0x00"}), 404, "relayer_unknown", "relayer_id")
    refused(await service.post(START, {"relayer_id": relayer}), 409, "block_not_reached", "to_block")
    body = {"relayer_id": relayer, "from_block": 30, "to_block": 20}
    refused(await service.post(START, body), 422, "block_range_invalid", "to_block")
    refused(await service.post(START, body | {"from_block": 9}), 422, "block_range_invalid", "from_block")
    refused(await service.post(START, body | {"chunk_blocks": 0}), 422, "input_invalid", "chunk_blocks")
    refused(await service.get(f"monitoring/backfill/{new_id()}"), 404, "job_unknown")
    refused(await service.post(f"monitoring/backfill/{new_id()}/pause", {}), 404, "job_unknown")
    reader = await service.key_for(scopes=(Scope.CHAIN_READ,))
    refused(await reader.post(START, {"relayer_id": relayer}), 403, "scope_missing")
    bound = await service.key_for(user_id="alice")
    refused(await bound.get(STATUS), 403, "service_key_required")


async def test_a_job_elsewhere_reports_and_never_backwards(service: Caller) -> None:
    job_id = str(new_id())
    told = {"job_id": job_id, "name": "archive", "from_block": 0, "to_block": 99, "covered_blocks": 10}
    first = ok(await service.post(PROGRESS, told))
    assert (first["elsewhere"], first["status"], first["share_covered"]) == (True, "running", "0.1000")
    assert first["chunk_blocks"] is None
    second = ok(await service.post(PROGRESS, told | {"covered_blocks": 50, "events_written": 7}))
    assert (second["covered_blocks"], second["events_written"]) == (50, 7)
    assert second["blocks_per_second"] > 0
    assert second["eta_at"] is not None
    for change, field in (
        ({"covered_blocks": 49, "events_written": 7}, "covered_blocks"),
        ({"covered_blocks": 60, "events_written": 6}, "events_written"),
        ({"covered_blocks": 101, "events_written": 7}, "covered_blocks"),
        ({"covered_blocks": 60, "events_written": 7, "to_block": 100}, "to_block"),
        ({"covered_blocks": 60, "events_written": 7, "status": "completed"}, "covered_blocks"),
    ):
        refused(await service.post(PROGRESS, told | change), 409, "progress_invalid", field)
    refused(await service.post(f"monitoring/backfill/{job_id}/pause", {}), 409, "job_external")
    end = told | {"covered_blocks": 100, "events_written": 9, "status": "completed"}
    assert ok(await service.post(PROGRESS, end))["finished_at"] is not None
    assert ok(await service.post(PROGRESS, end))["status"] == "completed", "the same end is told twice without harm"
    refused(await service.post(PROGRESS, end | {"status": "running"}), 409, "job_over")


async def test_a_job_of_ours_knows_its_progress_by_itself(service: Caller, relayer: str) -> None:
    job_id = ok(await service.post(START, {"relayer_id": relayer, "to_block": 20}), 202)["job_id"]
    told = {"job_id": job_id, "name": "x", "from_block": 10, "to_block": 20, "covered_blocks": 1}
    refused(await service.post(PROGRESS, told), 409, "job_not_external", "job_id")
    await until(service, job_id, "completed")


async def test_jobs_are_listed_by_filters_and_pages_for_their_tenant_alone(
    service: Caller,
) -> None:
    told = {"from_block": 0, "to_block": 9, "covered_blocks": 1}
    made = [
        ok(await service.post(PROGRESS, {"job_id": str(new_id()), "name": name, **told}))
        for name in ("a", "b", "a", "b", "b")
    ]
    failed = {"status": "failed", "error": "disk full"}
    ended = ok(await service.post(PROGRESS, {"job_id": made[4]["job_id"], "name": "b", **told, **failed}))
    assert ended["error"] == "disk full"
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = ok(await service.get(STATUS, **query))
        seen += [job["job_id"] for job in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [job["job_id"] for job in reversed(made)]

    async def found(**wanted: str) -> set[str]:
        return {job["job_id"] for job in ok(await service.get(STATUS, **wanted))["items"]}

    assert await found(name="a") == {made[0]["job_id"], made[2]["job_id"]}
    assert await found(status="failed") == {ended["job_id"]}
    assert await found(recorded_from=made[3]["recorded_at"]) == {made[3]["job_id"], made[4]["job_id"]}
    assert await found(recorded_to=made[1]["recorded_at"]) == {made[0]["job_id"]}
