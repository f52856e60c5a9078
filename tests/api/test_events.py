"""The feed over HTTP: in order, by position, service keys only."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.api.caller import BUYER, Caller, ok, refused

TOPIC = "settlement.events.v1"


async def read_until(caller: Caller, count: int) -> list[dict[str, Any]]:
    """The first ``count`` events, once the relay has numbered them."""
    for _ in range(400):
        items: list[dict[str, Any]] = ok(await caller.get("events"))["items"]
        if len(items) >= count:
            return items
        await asyncio.sleep(0.05)
    raise AssertionError(f"{count} events did not come in 20 seconds")


async def test_the_feed_is_read_from_where_one_was(service: Caller) -> None:
    assert ok(await service.get("events", after=7)) == {"items": [], "next_after": 7}
    escrow = await service.open()
    await service.command(escrow["escrow_id"], "approvals", BUYER)
    await service.command(escrow["escrow_id"], "cancel", BUYER)
    whole = await read_until(service, 3)
    assert [event["type"] for event in whole][:2] == ["escrow.created", "escrow.approval_recorded"]
    assert {event["subject"] for event in whole} == {f"escrow:{escrow['escrow_id']}"}
    assert {event["topic"] for event in whole} == {TOPIC}
    positions = [event["position"] for event in whole]
    assert positions == sorted(set(positions))
    read: list[dict[str, Any]] = []
    after = 0
    while True:
        page = ok(await service.get("events", after=after, limit=1, topic=TOPIC))
        if not page["items"]:
            assert page["next_after"] == after
            break
        read += page["items"]
        after = page["next_after"]
    assert read[: len(whole)] == whole


async def test_what_the_feed_refuses(service: Caller) -> None:
    assert TOPIC in ok(await service.get("events/topics"))["items"]
    refused(await service.get("events", topic="gossip"), 422, "input_invalid", "topic")
    refused(await service.get("events", after=-1), 422, "input_invalid", "after")
    refused(await service.get("events", after=2**63), 422, "input_invalid", "after")
    ok(await service.get("events", after=2**63 - 1))
    bound = await service.key_for(user_id=BUYER)
    refused(await bound.get("events"), 403, "service_key_required")
    refused(await bound.get("events/topics"), 403, "service_key_required")
