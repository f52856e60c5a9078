"""Alerts over HTTP, on the real servers: contacts and codes, what is told, taking note, and what is decided."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db.ids import new_id
from domain.alerts import links
from domain.alerts.model import AlertType, Channel, Policy, Step
from tests.alerting import SLOW, Alerting
from tests.api.caller import Caller, ok, refused
from tests.polling import eventually
from tests.prices import set_prices


@pytest.fixture
def alerting(service: Caller, tenants_engine: AsyncEngine, tenant: UUID) -> Alerting:
    return Alerting(tenants_engine, tenant)


async def mailbox(service: Caller, count: int, **query: Any) -> list[dict[str, Any]]:
    """The mailbox once it has so many messages, the oldest first."""
    found: list[dict[str, Any]] = []

    async def has() -> bool:
        found[:] = ok(await service.get("alerts/mailbox", **query))["items"][::-1]
        return len(found) >= count

    await eventually(has)
    return found


async def told(alerting: Alerting, service: Caller) -> dict[str, Any]:
    """A margin call that reached its user by mail."""
    await alerting.contact(Channel.EMAIL)
    await alerting.policy("margin_call", SLOW)
    await alerting.happen("margin_call")
    await alerting.until(lambda found: bool(found) and found[0].delivered_at is not None)
    [item] = ok(await service.get("alerts"))["items"]
    return dict(item)


async def test_a_contact_is_used_once_its_code_came_back(service: Caller, alerting: Alerting) -> None:
    body = {"user_id": "alice", "channel": "email", "address": " Alice@EXAMPLE.com "}
    made = ok(await service.post("alerts/contacts", body, key="contact-1"), 201)
    assert (made["address"], made["verified"], made["secret"]) == ("Alice@example.com", False, None)
    assert ok(await service.post("alerts/contacts", body, key="contact-1"), 201) == made
    refused(await service.post("alerts/contacts", body), 409, "contact_taken", "address")
    await alerting.happen("margin_warning")
    [first] = await mailbox(service, 1)
    code = re.findall(r"\b\d{6}\b", first["text"])[0]
    assert first["subject"] == f"Your code: {code}"
    await alerting.until(lambda found: bool(found) and found[0].failure_reason == "no_verified_contact")
    path = f"alerts/contacts/{made['contact_id']}"
    wrong = "000000" if code != "000000" else "000001"
    refused(await service.post(f"{path}/verify", {"code": wrong}), 422, "contact_code_wrong", "code")
    assert ok(await service.post(f"{path}/verify", {"code": code}))["verified"]
    refused(await service.post(f"{path}/code"), 409, "contact_verified")
    await alerting.happen("margin_recovered", "margin_call")
    messages = await mailbox(service, 2)
    assert messages[1]["subject"].startswith("MARGIN CALL")
    assert (await service.send("DELETE", path)).status_code == 204
    refused(await service.get(path), 404, "contact_unknown")
    assert ok(await service.get("alerts/contacts", user_id="alice"))["items"] == []
    assert ok(await service.post("alerts/contacts", body), 201)["contact_id"] != made["contact_id"]


async def test_a_webhook_contact_has_a_secret_that_is_shown_once(service: Caller, alerting: Alerting) -> None:
    body = {"user_id": "alice", "channel": "webhook", "address": "https://example.com/alerts"}
    made = ok(await service.post("alerts/contacts", body), 201)
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    assert "secret" not in ok(await service.get(f"alerts/contacts/{made['contact_id']}"))
    [message] = await mailbox(service, 1, channel="webhook")
    code = json.loads(message["text"])["data"]["facts"]["code"]
    ok(await service.post(f"alerts/contacts/{made['contact_id']}/verify", {"code": code}))
    await alerting.policy("liquidation_due", SLOW)
    await alerting.happen("liquidation_due")
    messages = await mailbox(service, 2, channel="webhook")
    said = json.loads(messages[1]["text"])
    assert (said["type"], said["data"]["alert_type"], said["data"]["severity"]) == (
        "alert.raised",
        "liquidation_due",
        "critical",
    )


async def test_codes_can_be_guessed_five_times(service: Caller) -> None:
    made = ok(
        await service.post("alerts/contacts", {"user_id": "a", "channel": "sms", "address": "+4915112345678"}), 201
    )
    path = f"alerts/contacts/{made['contact_id']}"
    [message] = await mailbox(service, 1)
    code = re.findall(r"\d{6}", message["text"])[0]
    wrong = "999999" if code != "999999" else "999998"
    for _ in range(5):
        refused(await service.post(f"{path}/verify", {"code": wrong}), 422, "contact_code_wrong")
    refused(await service.post(f"{path}/verify", {"code": code}), 409, "contact_code_expired")
    ok(await service.post(f"{path}/code"))
    messages = await mailbox(service, 2)
    code = re.findall(r"\d{6}", messages[1]["text"])[0]
    assert ok(await service.post(f"{path}/verify", {"code": code}))["verified"]


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        ("email", "nobody"),
        ("email", "a@b@c.com"),
        ("email", "a@localhost"),
        ("sms", "015112345678"),
        ("sms", "+49"),
        ("sms", "+49abc"),
    ],
)
async def test_addresses_that_are_none(service: Caller, channel: str, address: str) -> None:
    body = {"user_id": "alice", "channel": channel, "address": address}
    refused(await service.post("alerts/contacts", body), 422, "contact_address_invalid", "address")


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/hook",
        "https://user:pass@example.com",
        "ftp://example.com",
        "https://localhost/hook",
        "https://10.0.0.1/hook",
        "https://169.254.169.254/latest",
        "https://2130706433/hook",
    ],
)
async def test_a_callback_never_leads_inside(service: Caller, address: str) -> None:
    body = {"user_id": "alice", "channel": "webhook", "address": address}
    refused(await service.post("alerts/contacts", body), 422, "webhook_url_refused", "address")


async def test_an_alert_with_every_attempt_is_acknowledged_once(service: Caller, alerting: Alerting) -> None:
    item = await told(alerting, service)
    assert (item["status"], item["channels"], item["must_acknowledge"]) == ("DELIVERED", ["email"], True)
    path = f"alerts/{item['notification_id']}"
    found = ok(await service.get(path))
    assert [one["phase"] for one in found["attempts"]] == ["begun", "ended"]
    assert found["attempts"][0]["body"] == found["message"]
    acked = ok(await service.post(f"{path}/ack", {"actor": "alice"}, key="ack-1"))
    assert (acked["status"], acked["acknowledged_by"], acked["ended"]) == ("ACKNOWLEDGED", "alice", "acknowledged")
    assert ok(await service.post(f"{path}/ack", {"actor": "alice"}, key="ack-1")) == acked
    assert ok(await service.post(f"{path}/ack", {"actor": "bob"}))["acknowledged_by"] == "alice"
    assert [one["phase"] for one in ok(await service.get(path))["attempts"]][-1] == "acknowledged"
    for query, count in (
        ({"open": "false"}, 1),
        ({"open": "true"}, 0),
        ({"channel": "sms"}, 0),
        ({"status": "SENT"}, 0),
    ):
        assert len(ok(await service.get("alerts", **query))["items"]) == count
    refused(await service.get(f"alerts/{new_id()}"), 404, "alert_unknown")
    refused(await service.post(f"alerts/{new_id()}/ack"), 404, "alert_unknown")


async def test_a_bound_key_sees_and_notes_its_own(service: Caller, alerting: Alerting) -> None:
    item = await told(alerting, service)
    alice, bob = await service.key_for(user_id="alice"), await service.key_for(user_id="bob")
    path = f"alerts/{item['notification_id']}"
    assert ok(await bob.get("alerts"))["items"] == []
    refused(await bob.get(path), 404, "alert_unknown")
    refused(await bob.post(f"{path}/ack"), 404, "alert_unknown")
    refused(await bob.get("alerts", user_id="alice"), 403, "actor_not_allowed")
    for closed in ("alerts/mailbox", "alerts/readiness"):
        refused(await alice.get(closed), 403, "service_key_required")
    assert ok(await alice.post(f"{path}/ack"))["acknowledged_by"] == "alice"


async def test_where_others_were_told_is_not_shown_to_a_bound_key(service: Caller, alerting: Alerting) -> None:
    await alerting.contact(Channel.EMAIL)
    await alerting.contact(Channel.EMAIL, "desk@example.com", user="desk")
    await alerting.policy("margin_call", Policy(must_acknowledge=True, steps=(Step(to=("user", "desk")), Step(999))))
    await alerting.happen("margin_call")
    [told] = await alerting.until(lambda found: bool(found) and len(found[0].alert.deliveries) == 2)
    path = f"alerts/{told.notification_id}"

    async def ended() -> bool:
        return len(ok(await service.get(path))["attempts"]) == 4

    await eventually(ended)
    alice = await service.key_for(user_id="alice")
    for caller, shown in ((service, {"alice@example.com", "desk@example.com"}), (alice, {"alice@example.com", None})):
        for answer in (ok(await caller.get(path)), ok(await caller.get("alerts"))["items"][0]):
            assert {one["address"] for one in answer["deliveries"]} == shown
        for answer in (ok(await caller.get(path)), ok(await caller.get(f"{path}/proof"))):
            assert {one["address"] for one in answer["attempts"]} == shown
            assert {one["body"] is None for one in answer["attempts"] if one["address"] is None} <= {True}


async def test_the_link_in_a_message_shows_a_page_and_its_button_acknowledges(
    service: Caller, nobody: Caller, alerting: Alerting
) -> None:
    item = await told(alerting, service)
    stored = await alerting.get(UUID(item["notification_id"]))
    token = links.token(stored.link_key, stored.notification_id, 1)
    for _ in range(2):
        page = await nobody.send("GET", f"/a/{token}")
        assert page.status_code == 200
        assert "<form method='post'>" in page.text
    assert ok(await service.get(f"alerts/{item['notification_id']}"))["status"] == "DELIVERED", "scanners follow links"
    forged = links.token(bytes(32), stored.notification_id, 1)
    for wrong in (forged, "abc", token[:-1] + ("A" if token[-1] != "A" else "B")):
        for method in ("GET", "POST"):
            assert (await nobody.send(method, f"/a/{wrong}")).status_code == 404
    done = await nobody.send("POST", f"/a/{token}")
    assert "Acknowledged at" in done.text
    assert "form-action 'self'" in done.headers["content-security-policy"]
    found = ok(await service.get(f"alerts/{item['notification_id']}"))
    assert (found["status"], found["acknowledged_by"], found["acknowledged_via"]) == ("ACKNOWLEDGED", "alice", "link")
    assert "Acknowledged at" in (await nobody.send("POST", f"/a/{token}")).text


async def test_wishes_and_policies(service: Caller) -> None:
    assert ok(await service.get("alerts/preferences/alice"))["locale"] == "en"
    wishes = {"locale": "de-AT", "time_zone": "Europe/Vienna", "quiet_from": "22:00", "quiet_to": "07:00"}
    made = ok(await service.send("PUT", "alerts/preferences/alice", wishes))
    assert made == {"user_id": "alice", "minimum_severity": "low"} | wishes
    assert ok(await service.get("alerts/preferences/alice")) == made
    for change, code in (
        ({"locale": "xx"}, "locale_unknown"),
        ({"time_zone": "Mars"}, "time_zone_unknown"),
        ({"quiet_to": None}, "quiet_hours_incomplete"),
    ):
        refused(await service.send("PUT", "alerts/preferences/alice", wishes | change), 422, code)
    policies = ok(await service.get("alerts/policies"))["items"]
    assert {one["alert_type"] for one in policies} == {str(one) for one in AlertType} - {"contact_code"}
    assert all(one["default"] for one in policies)
    policy = {"steps": [{}, {"after_seconds": 60, "to": ["user", "desk"], "channels": ["sms"]}], "repeat": 2}
    made = ok(await service.send("PUT", "alerts/policies/margin_call", policy))
    assert (made["default"], made["steps"][1]["to"], made["repeat_seconds"]) == (False, ["user", "desk"], 900)
    wrong = {"steps": [{"after_seconds": 1}]}
    refused(await service.send("PUT", "alerts/policies/margin_call", wrong), 422, "policy_steps_invalid", "steps")
    assert (await service.send("DELETE", "alerts/policies/margin_call")).status_code == 204
    assert all(one["default"] for one in ok(await service.get("alerts/policies"))["items"])


async def test_templates_are_listed_and_previewed(service: Caller) -> None:
    listed = ok(await service.get("alerts/templates"))["items"]
    assert {one["alert_type"] for one in listed} == {str(one) for one in AlertType}
    for one in listed:
        for locale in one["locales"]:
            path = f"alerts/templates/{one['alert_type']}/preview"
            shown = ok(await service.post(path, {"locale": locale, "occurrences": 3}))
            assert len(shown["sms"]) <= 160
    mine = {"facts": {"health_score": "0.5", "threshold_breached": "<1>"}, "locale": "de"}
    shown = ok(await service.post("alerts/templates/margin_call/preview", mine))
    assert shown["subject"] == "MARGIN CALL: Faktor 0.5"
    assert "&lt;1&gt;" in shown["html"]
    refused(await service.post("alerts/templates/margin_call/preview", {"locale": "xx"}), 422, "locale_unknown")


async def test_who_owes_and_could_not_be_told_is_a_gap(
    service: Caller, alerting: Alerting, engine: AsyncEngine
) -> None:
    await set_prices(engine, ETH=2_000, USDC=1)
    owing = {"collateral_positions": {"ETH": 1}, "borrow_positions": {"USDC": 100}}
    for user in ("anna", "bert", "carl"):
        ok(await service.post("margin/health", owing | {"user_id": user}))
    ok(await service.post("margin/health", {"user_id": "dora", "collateral_positions": {"ETH": 1}}))
    await alerting.contact(Channel.EMAIL, user="bert")
    for channel in (Channel.EMAIL, Channel.SMS):
        await alerting.contact(channel, user="carl")
    gaps = ok(await service.get("alerts/readiness"))["items"]
    assert [(gap["user_id"], gap["verified_channels"], gap["reachable"]) for gap in gaps] == [
        ("anna", [], False),
        ("bert", ["email"], True),
    ]
    first = ok(await service.get("alerts/readiness", limit="1"))
    assert ok(await service.get("alerts/readiness", cursor=first["next_cursor"]))["items"] == gaps[1:]


async def test_a_price_that_falls_is_told_and_is_over_when_it_rises(
    service: Caller, nobody: Caller, alerting: Alerting, engine: AsyncEngine
) -> None:
    """From a price to a mail, a link and the end, each of it once."""
    await set_prices(engine, ETH=2_000, USDC=1)
    await alerting.contact(Channel.EMAIL)
    await alerting.policy("margin_call", SLOW)
    account = {"user_id": "alice", "collateral_positions": {"ETH": 10}, "borrow_positions": {"USDC": 10_000}}
    assert ok(await service.post("margin/health", account))["status"] == "HEALTHY"
    await set_prices(engine, ETH=1_400)
    checked = ok(await service.post("margin/health", {"user_id": "alice"}))
    [call] = await alerting.until(lambda found: bool(found) and found[0].delivered_at is not None)
    assert str(call.alert.margin_event_id) == checked["events"][0]["event_id"]
    token = links.token(call.link_key, call.notification_id, 1)
    assert (await nobody.send("POST", f"/a/{token}")).status_code == 200
    await set_prices(engine, ETH=2_000)
    ok(await service.post("margin/health", {"user_id": "alice"}))
    found = await alerting.until(lambda found: len(found) == 2 and found[1].delivered_at is not None)
    assert [(one.alert.alert_type, one.status) for one in found] == [
        ("margin_call", "ACKNOWLEDGED"),
        ("margin_recovered", "DELIVERED"),
    ]
    assert [one["subject"] for one in await mailbox(service, 2)] == [
        f"MARGIN CALL: health {checked['health_score'][:6]}",
        "Over: your margin account has recovered",
    ]
    events = ok(await service.get("events", topic="alerts.events.v1"))["items"]
    kinds = sorted(one["type"] for one in events if one["subject"] == f"alert:{call.notification_id}")
    assert kinds == ["alert.acknowledged", "alert.delivered", "alert.passed", "alert.raised"]
