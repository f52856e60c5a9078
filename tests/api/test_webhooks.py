"""Endpoints through the API, with a worker behind it and receivers on real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import jsonschema
import pytest

from domain.identity import Scope
from kit.clock import now
from kit.standardwebhooks import PublicKey, SharedSecret, Verifier, verify
from tests.api.caller import Caller, ok, refused
from tests.polling import eventually
from tests.vendors.server import Reply, Vendor, vendor


@pytest.fixture
async def receiver() -> AsyncIterator[Vendor]:
    async with vendor() as made:
        made.say(b"thanks")
        yield made


async def make(service: Caller, receiver: Vendor, *types: str, **fields: Any) -> dict[str, Any]:
    body = {"url": f"{receiver.url}/hook", "event_types": list(types) or ["*"], **fields}
    made: dict[str, Any] = ok(await service.post("webhooks", body), 201)
    return made


async def deliveries(service: Caller, hook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ok(await service.get(f"webhooks/{hook['subscription_id']}/deliveries", **query))[
        "items"
    ]
    return found


async def arrived(receiver: Vendor, count: int) -> None:
    async def enough() -> bool:
        return len(receiver.asked) >= count

    await eventually(enough)


async def settled(service: Caller, hook: dict[str, Any], status: str = "delivered") -> None:
    async def all_so() -> bool:
        found = await deliveries(service, hook)
        return bool(found) and all(each["status"] == status for each in found)

    await eventually(all_so)


async def test_an_event_is_delivered_signed_and_told(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, "ledger.*", headers={"Authorization": "Bearer theirs"}, description="books")
    assert hook["header_names"] == ["Authorization"]
    assert (hook["status"], hook["ordering"]) == ("active", "none")
    await service.deposit("alice", "7")
    await arrived(receiver, 1)
    [asked] = receiver.asked
    keys: list[Verifier] = [SharedSecret.parse(hook["secret"]), PublicKey.parse(hook["keys"][0]["public_key"])]
    for key in keys:
        message_id = verify(asked.headers, asked.body, [key], now=now())
    assert asked.headers["authorization"] == "Bearer theirs"
    body = json.loads(asked.body)
    assert (body["id"], body["type"], body["data"]["amount"]) == (message_id, "ledger.deposited", "7.000000")
    await settled(service, hook)
    [delivery] = await deliveries(service, hook, status="delivered", event_type="ledger.deposited")
    assert (delivery["message_id"], delivery["origin"], delivery["failures"]) == (message_id, "event", 0)
    [attempt] = delivery["attempts"]
    assert attempt["request"]["body"].encode() == asked.body
    assert attempt["request"]["headers"]["Authorization"] == "(hidden)"
    assert attempt["request"]["headers"]["webhook-signature"] == asked.headers["webhook-signature"]
    assert (attempt["response"]["status"], attempt["response"]["body"]) == (200, "thanks")
    assert attempt["duration_ms"] >= 0
    one = ok(await service.get(f"webhooks/{hook['subscription_id']}/deliveries/{message_id}"))
    assert one == delivery
    assert "theirs" not in (await service.get(f"webhooks/{hook['subscription_id']}/deliveries")).text


async def test_what_is_read_shows_no_secret(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, headers={"X-Token": "hush"})
    for answer in (
        await service.get("webhooks"),
        await service.get(f"webhooks/{hook['subscription_id']}"),
        await service.send("PATCH", f"webhooks/{hook['subscription_id']}", {"description": "new"}),
    ):
        assert answer.status_code == 200
        assert "hush" not in answer.text
        assert hook["secret"] not in answer.text


async def test_a_repeated_creation_is_one_endpoint_and_shows_its_secret_to_the_same_key(
    service: Caller, receiver: Vendor
) -> None:
    body = {"url": f"{receiver.url}/hook", "event_types": ["*"]}
    first, again = [ok(await service.post("webhooks", body, key="one"), 201) for _ in range(2)]
    assert first == again
    assert len(ok(await service.get("webhooks"))["items"]) == 1


async def test_only_what_concerns_a_user_or_an_escrow(service: Caller, receiver: Vendor) -> None:
    alices = await make(service, receiver, "ledger.*", user_id="alice")
    escrow = await service.open()
    its = await make(service, receiver, "escrow.*", escrow_id=escrow["escrow_id"])
    await service.deposit("bob", "1")
    await service.deposit("alice", "200")
    await service.open()
    await service.command(escrow["escrow_id"], "fund", "alice")
    await arrived(receiver, 2)
    await settled(service, alices)
    await settled(service, its)
    assert [each["event_type"] for each in await deliveries(service, alices)] == ["ledger.deposited"]
    assert [each["event_type"] for each in await deliveries(service, its)] == ["escrow.funded"]
    assert len(receiver.asked) == 2


async def test_a_test_is_sent_like_any_other(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, "escrow.*")
    path = f"webhooks/{hook['subscription_id']}/test"
    begun = ok(await service.post(path, key="t"), 202)
    assert ok(await service.post(path, key="t"), 202)["message_id"] == begun["message_id"]
    assert (begun["status"], begun["origin"], begun["position"]) == ("waiting", "test", None)
    await arrived(receiver, 1)
    assert receiver.asked[0].headers["webhook-id"] == begun["message_id"]
    assert json.loads(receiver.asked[0].body)["type"] == "webhook.test"
    refused(await service.post(path, {"event_type": "no.such"}), 422, "event_type_unknown", "event_type")


async def test_a_delivery_is_tried_again_by_hand(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, "ledger.*")
    receiver.answer = lambda _: Reply(b"broken", 500)
    await service.deposit("alice", "7")
    await arrived(receiver, 1)

    async def failed_once() -> bool:
        found = await deliveries(service, hook)
        return bool(found) and found[0]["failures"] == 1

    await eventually(failed_once)
    [delivery] = await deliveries(service, hook)
    path = f"webhooks/{hook['subscription_id']}/deliveries/{delivery['message_id']}/retry"
    refused(await service.post(path), 409, "delivery_waiting")
    receiver.say(b"ok")
    await arrived(receiver, 2)
    await settled(service, hook)
    again = ok(await service.post(path), 202)
    assert (again["status"], again["origin"]) == ("waiting", "retry")
    await arrived(receiver, 3)
    await settled(service, hook)
    assert len({asked.headers["webhook-id"] for asked in receiver.asked}) == 1
    assert [each["number"] for each in (await deliveries(service, hook))[0]["attempts"]] == [1, 2, 3]


async def test_a_time_is_replayed(service: Caller, receiver: Vendor) -> None:
    begins = now()
    await service.deposit("alice", "1")
    hook = await make(service, receiver, "ledger.*")
    await service.deposit("alice", "2")
    await arrived(receiver, 1)
    await settled(service, hook)
    path = f"webhooks/{hook['subscription_id']}/replays"
    range_ = {"from": begins.isoformat(), "to": (now() + timedelta(minutes=1)).isoformat()}
    replay = ok(await service.post(path, range_), 202)

    async def finished(which: dict[str, Any]) -> bool:
        return ok(await service.get(f"{path}/{which['replay_id']}"))["finished_at"] is not None

    await eventually(lambda: finished(replay))
    await arrived(receiver, 2)
    assert ok(await service.get(f"{path}/{replay['replay_id']}"))["queued"] == 1
    amounts = [json.loads(asked.body)["data"]["amount"] for asked in receiver.asked]
    assert amounts == ["2.000000", "1.000000"]
    everything = ok(await service.post(path, range_ | {"undelivered_only": False}), 202)
    await eventually(lambda: finished(everything))
    await arrived(receiver, 4)
    assert len({asked.headers["webhook-id"] for asked in receiver.asked}) == 2
    refused(await service.post(path, {"from": range_["to"], "to": range_["from"]}), 422, "range_empty", "to")


async def test_a_secret_is_rotated_with_an_overlap(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, "ledger.*")
    path = f"webhooks/{hook['subscription_id']}/rotate-secret"
    new = ok(await service.post(path, {"overlap_hours": 2}))
    assert new["secret"] != hook["secret"]
    assert [key["expires_at"] is None for key in new["keys"]] == [True, False]
    await service.deposit("alice", "1")
    await arrived(receiver, 1)
    for secret in (hook["secret"], new["secret"]):
        verify(receiver.asked[0].headers, receiver.asked[0].body, [SharedSecret.parse(secret)], now=now())
    newest = ok(await service.post(path, {"overlap_hours": 0}))
    assert len(newest["keys"]) == 1


async def test_it_is_stopped_changed_and_enabled_again(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, "ledger.*", rate_limit_per_second=5, user_id="alice")
    path = f"webhooks/{hook['subscription_id']}"
    off = ok(await service.send("PATCH", path, {"enabled": False}))
    assert (off["status"], off["disabled_reason"]) == ("disabled", "asked")
    refused(await service.post(f"{path}/test"), 409, "webhook_disabled")
    changed = ok(
        await service.send(
            "PATCH",
            path,
            {"enabled": True, "rate_limit_per_second": None, "user_id": None, "event_types": ["escrow.*"]},
        )
    )
    assert (changed["status"], changed["disabled_reason"], changed["rate_limit_per_second"]) == ("active", None, None)
    assert (changed["user_id"], changed["event_types"]) == (None, ["escrow.*"])
    refused(await service.send("PATCH", path, {"url": None}), 422, "required", "url")
    await service.open()
    await arrived(receiver, 1)


async def test_a_deleted_one_is_forgotten(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver)
    path = f"webhooks/{hook['subscription_id']}"
    assert ok(await service.send("DELETE", path))["status"] == "deleted"
    refused(await service.get(path), 404, "webhook_unknown")
    refused(await service.send("DELETE", path), 404, "webhook_unknown")
    assert ok(await service.get("webhooks"))["items"] == []


async def test_how_it_does(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, "ledger.*")
    path = f"webhooks/{hook['subscription_id']}/health"
    empty = ok(await service.get(path))
    assert (empty["waiting"], empty["attempts"], empty["latency_ms"]) == (0, 0, None)
    await service.deposit("alice", "1")
    await settled(service, hook)
    receiver.answer = lambda _: Reply(b"", 500)
    await service.deposit("alice", "1")

    async def fails() -> bool:
        return ok(await service.get(path))["failing_since"] is not None

    await eventually(fails)
    bad = ok(await service.get(path))
    assert (bad["waiting"], bad["delivered"], bad["status"]) == (1, 1, "active")
    assert bad["last_success_at"] < bad["failing_since"] < bad["disabled_if_failing_until"]
    assert bad["next_attempt_at"] is not None


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"url": "http://example.com/"}, "webhook_url_refused", "url"),
        ({"url": "https://169.254.169.254/"}, "webhook_url_refused", "url"),
        ({"url": "https://user:word@example.com/"}, "webhook_url_refused", "url"),
        ({"event_types": ["escrow.funded", "no.such"]}, "event_type_unknown", "event_types.1"),
        ({"event_types": ["es*row"]}, "event_type_unknown", "event_types.0"),
        ({"headers": {"Webhook-Id": "1"}}, "header_not_allowed", "headers.Webhook-Id"),
        ({"headers": {"Host": "elsewhere"}}, "header_not_allowed", "headers.Host"),
        ({"headers": {"X-A": "a\u00e4"}}, "header_not_allowed", "headers.X-A"),
        ({"user_id": "system:fees"}, "user_id_invalid", "user_id"),
        ({"concurrency": 0}, "input_invalid", "concurrency"),
        ({"event_types": []}, "input_invalid", "event_types"),
    ],
)
async def test_what_no_endpoint_may_be(
    service: Caller, receiver: Vendor, changes: dict[str, Any], code: str, field: str
) -> None:
    refused(await service.post("webhooks", {"url": receiver.url, "event_types": ["*"], **changes}), 422, code, field)


async def test_the_catalogue_describes_what_comes(service: Caller, receiver: Vendor) -> None:
    items = {each["type"]: each for each in ok(await service.get("webhooks/event-types"))["items"]}
    await make(service, receiver)
    await service.deposit("alice", "100")
    escrow = await service.open()
    await service.command(escrow["escrow_id"], "fund", "alice")
    await arrived(receiver, 3)
    for asked in receiver.asked:
        body = json.loads(asked.body)
        jsonschema.validate(body, items[body["type"]]["schema"], format_checker=jsonschema.FormatChecker())


async def test_service_keys_with_their_scopes_only(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver)
    path = f"webhooks/{hook['subscription_id']}"
    reader = await service.key_for(scopes=(Scope.WEBHOOKS_READ,))
    ok(await reader.get(path))
    refused(await reader.send("PATCH", path, {"enabled": False}), 403, "scope_missing")
    bound = await service.key_for(user_id="alice")
    for way in ("", f"/{hook['subscription_id']}", f"/{hook['subscription_id']}/deliveries"):
        refused(await bound.get(f"webhooks{way}"), 403, "service_key_required")


async def test_lists_are_paged(service: Caller, receiver: Vendor) -> None:
    hook = await make(service, receiver, "ledger.*")
    for number in range(1, 6):
        await service.deposit("alice", str(number))
    await arrived(receiver, 5)
    found: list[str] = []
    cursor = None
    while True:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = ok(await service.get(f"webhooks/{hook['subscription_id']}/deliveries", **query))
        found += [each["message_id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(set(found)) == len(found) == 5
