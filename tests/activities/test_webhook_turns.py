"""Turns of endpoints on a real database, against real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from activities.ports import Answered
from db.webhooks.reports import Delivery
from domain.webhooks.delivering import ATTEMPTS_MAX, DELAYS, DeliveryStatus
from domain.webhooks.endpoint import Ordering
from kit.clock import now
from tests.databases import migrated_database
from tests.hooks import QUICK, Hooks, event, failing, hooking, numbers, received
from tests.polling import eventually
from tests.vendors.server import Asked, Reply, Vendor, vendor
from tools.local.postgres import EmbeddedPostgres


@pytest.fixture
def hooks_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture
async def hooks(hooks_url: str) -> AsyncIterator[Hooks]:
    async with hooking(hooks_url) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Vendor]:
    async with vendor() as made:
        made.say(b"thanks", 200)
        yield made


def only(deliveries: list[Delivery]) -> Delivery:
    (one,) = deliveries
    return one


async def test_an_event_reaches_who_wants_it(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(f"{receiver.url}/in?x=1", "escrow.*", headers={"X-Desk": "7"})
    told = event(3, reason="ä €")
    await hooks.tell(told, event(4, "ledger.deposited"))
    done = await hooks.turn(hook)
    assert (done.delivered, done.failed, done.next_at) == (1, 0, None)
    [asked] = receiver.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/in", [("x", "1")])
    assert asked.headers["x-desk"] == "7"
    assert asked.headers["content-type"] == "application/json"
    assert hook.check(asked) == str(told.event_id)
    body = json.loads(asked.body)
    assert body == {
        "id": str(told.event_id),
        "type": "escrow.funded",
        "timestamp": body["timestamp"],
        "subject": "escrow:3",
        "position": 1,
        "data": dict(told.data),
    }
    delivery = only(await hooks.deliveries(hook))
    [attempt] = delivery.attempts
    assert (delivery.status, delivery.failures, delivery.body) == (DeliveryStatus.DELIVERED, 0, asked.body.decode())
    assert (attempt.result, attempt.status_code, attempt.response_body) == ("delivered", 200, "thanks")
    assert attempt.request_headers is not None
    assert attempt.request_headers["webhook-signature"] == asked.headers["webhook-signature"]
    assert attempt.request_headers["X-Desk"] == "(hidden)"


async def test_many_arrive_once_each(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url)
    told = [event(number) for number in range(1_000)]
    await hooks.tell(*told)
    done = await hooks.turn(hook)
    assert done.delivered == 1_000
    assert sorted(received(receiver)) == sorted(str(each.event_id) for each in told)
    assert {each.status for each in await hooks.deliveries(hook)} == {DeliveryStatus.DELIVERED}


async def test_never_more_at_a_time_than_the_endpoint_allows(hooks: Hooks) -> None:
    """Whoever is asked answers nothing until as many as may be there are there."""
    hook = await hooks.subscribe("http://127.0.0.1:1/", concurrency=3)
    at_once = most = 0
    arrived = asyncio.Event()

    class Counting:
        async def post(self, *_: object, **__: object) -> Answered:
            nonlocal at_once, most
            at_once, most = at_once + 1, max(most, at_once + 1)
            if at_once == 3:
                arrived.set()
            await arrived.wait()
            at_once -= 1
            return Answered(204, {}, b"", truncated=False, duration_ms=1)

        async def close(self) -> None:
            """Nothing is held."""

    await hooks.tell(*(event(number) for number in range(12)))
    done = await hooks.turn(hook, outward=Counting())
    assert (done.delivered, most) == (12, 3)


async def test_what_fails_is_tried_again_under_its_id_until_it_is_given_up(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url)
    receiver.answer = failing(500)
    [told] = await hooks.tell(event())
    for number in range(1, ATTEMPTS_MAX + 1):
        before = now()
        done = await hooks.turn(hook)
        assert (done.delivered, done.failed) == (0, 1)
        delivery = only(await hooks.deliveries(hook))
        if number == ATTEMPTS_MAX:
            assert (delivery.status, delivery.next_attempt_at, done.next_at) == (DeliveryStatus.FAILED, None, None)
            break
        assert delivery.next_attempt_at is not None
        assert delivery.next_attempt_at == done.next_at
        pause = delivery.next_attempt_at - before
        assert DELAYS[number - 1] * 0.79 < pause < DELAYS[number - 1] * 1.21 + timedelta(seconds=3)
        await hooks.make_due(hook)
    assert received(receiver) == [str(told)] * ATTEMPTS_MAX
    assert {asked.body for asked in receiver.asked} == {receiver.asked[0].body}
    assert [each.status_code for each in delivery.attempts] == [500] * ATTEMPTS_MAX


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [(429, {"Retry-After": "120"}, 120), (503, {"Retry-After": "90"}, 90), (502, {}, 5), (500, {}, None)],
)
async def test_who_asks_to_be_left_alone_is(
    hooks: Hooks, receiver: Vendor, status: int, headers: dict[str, str], pause: int | None
) -> None:
    """Nothing else is sent meanwhile, new or old."""
    hook = await hooks.subscribe(receiver.url, concurrency=1)
    receiver.answer = failing(status, headers=headers)
    await hooks.tell(event(1))
    before = now()
    done = await hooks.turn(hook)
    await hooks.tell(event(2))
    receiver.say(b"ok")
    done = await hooks.turn(hook)
    if pause is None:
        assert (done.delivered, len(receiver.asked)) == (1, 2)
        return
    assert (done.delivered, len(receiver.asked)) == (0, 1)
    assert done.next_at is not None
    assert timedelta(0) <= done.next_at - before - timedelta(seconds=pause) < timedelta(seconds=5)


async def test_nothing_of_a_turn_outlives_it(hooks: Hooks, receiver: Vendor) -> None:
    """While an answer is awaited, it is looked for more that is due; whoever closes the database then finds it free."""
    hook = await hooks.subscribe(receiver.url)
    receiver.answer = lambda _: Reply(silent=True)
    await hooks.tell(event(1))
    assert (await hooks.turn(hook)).failed == 1
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("webhooks")] == []


async def test_after_the_pause_it_is_looked_at_whatever_waits_longer(hooks: Hooks, receiver: Vendor) -> None:
    """What comes just behind the wake does not wake it again, and does not wait for the attempt after many failures."""
    hook = await hooks.subscribe(receiver.url)
    receiver.answer = failing(429, headers={"Retry-After": "90"})
    await hooks.tell(event(1))
    before = now()
    await hooks.turn(hook)
    await hooks.sql("UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at + interval '10 hours'")
    done = await hooks.turn(hook)
    assert done.next_at is not None
    assert timedelta(0) <= done.next_at - before - timedelta(seconds=90) < timedelta(seconds=5)


async def test_nothing_more_is_sent_when_one_answer_asks_for_that(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url, concurrency=1)
    receiver.answer = failing(429)
    await hooks.tell(*(event(number) for number in range(20)))
    await hooks.turn(hook)
    assert len(receiver.asked) == 1
    assert sorted(each.failures for each in await hooks.deliveries(hook)) == [0] * 19 + [1]


async def test_gone_disables_and_leaves_an_event(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(f"{receiver.url}/?token=secret", owner_user_id="alice")
    receiver.answer = failing(410)
    await hooks.tell(event(1))
    done = await hooks.turn(hook)
    assert done.next_at is None
    [(topic, data)] = await hooks.sql("SELECT topic, data FROM outbox WHERE type = 'webhook.disabled'")
    assert topic == "webhooks.events.v1"
    assert (data["reason"], data["owner"], data["url"]) == ("gone", "alice", f"{receiver.url}/")
    await hooks.tell(event(2))
    await hooks.make_due(hook)
    assert (await hooks.turn(hook)).failed == 0
    assert len(receiver.asked) == 1


async def test_five_days_of_failures_disable(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url)
    receiver.answer = failing(500)
    await hooks.tell(event())
    for days in (0, 4, 5):
        await hooks.sql(
            "UPDATE webhook_subscriptions SET failing_since = failing_since - CAST(:passed AS interval),"
            " failed_at = clock_timestamp() - interval '1 day' WHERE failing_since IS NOT NULL",
            passed=timedelta(days=1 if days == 5 else days),
        )
        assert await hooks.sql("SELECT status FROM webhook_subscriptions") == [("active",)]
        await hooks.make_due(hook)
        await hooks.turn(hook)
    assert await hooks.sql("SELECT status, disabled_reason FROM webhook_subscriptions") == [("disabled", "failing")]


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 199, 304])
async def test_only_2xx_is_a_success_and_no_redirect_is_followed(hooks: Hooks, receiver: Vendor, status: int) -> None:
    hook = await hooks.subscribe(receiver.url)
    receiver.answer = failing(status, headers={"Location": f"{receiver.url}/elsewhere"})
    await hooks.tell(event())
    done = await hooks.turn(hook)
    assert (done.delivered, done.failed, len(receiver.asked)) == (0, 1, 1)


async def test_an_address_inside_is_never_called(hooks: Hooks, receiver: Vendor) -> None:
    """It stands in the table by whatever way it got there; the door says no, and says so in the log of attempts."""
    hook = await hooks.subscribe("https://169.254.169.254/latest")
    await hooks.tell(event())
    assert (await hooks.turn(hook)).failed == 1
    [attempt] = only(await hooks.deliveries(hook)).attempts
    assert (attempt.result, attempt.request_headers, attempt.status_code) == ("blocked", None, None)


async def test_both_keys_sign_while_one_takes_the_others_place(hooks: Hooks, receiver: Vendor) -> None:
    old = await hooks.subscribe(receiver.url)
    new = await hooks.rotate(old)
    await hooks.tell(event(1))
    await hooks.turn(old)
    old.check(receiver.asked[-1])
    new.check(receiver.asked[-1])
    assert receiver.asked[-1].headers["webhook-signature"].count(",") == 4


async def test_a_rate_is_kept(hooks: Hooks) -> None:
    """Counted by the clock that the endpoint sees; the upper bound is what matters."""
    hook = await hooks.subscribe("http://127.0.0.1:1/", rate_per_second=20)
    times: list[float] = []

    class Timing:
        async def post(self, *_: object, **__: object) -> Answered:
            times.append(asyncio.get_running_loop().time())
            return Answered(200, {}, b"", truncated=False, duration_ms=1)

        async def close(self) -> None:
            """Nothing is held."""

    await hooks.tell(*(event(number) for number in range(21)))
    await hooks.turn(hook, outward=Timing())
    assert len(times) == 21
    assert times[-1] - times[0] >= 0.99


async def test_with_an_order_a_failure_holds_its_subject_up_and_no_other(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url, ordering=Ordering.SUBJECT)
    first = [event(number, subject=f"escrow:{number % 2}") for number in range(6)]

    def refuses_two(asked: Asked) -> Reply:
        return Reply(b"", 500 if json.loads(asked.body)["data"]["number"] == 2 else 200)

    receiver.answer = refuses_two
    await hooks.tell(*first)
    done = await hooks.turn(hook)
    assert (done.delivered, done.failed) == (4, 1)
    assert [n for n in numbers(receiver) if n % 2] == [1, 3, 5]
    assert [n for n in numbers(receiver) if not n % 2] == [0, 2]
    await hooks.tell(event(6, subject="escrow:0"), event(7, subject="escrow:1"))
    await hooks.turn(hook)
    assert numbers(receiver)[-1] == 7
    receiver.say(b"ok")
    await hooks.make_due(hook)
    await hooks.turn(hook)
    assert [n for n in numbers(receiver) if not n % 2] == [0, 2, 2, 4, 6]


async def test_with_an_order_many_of_one_subject_arrive_in_it(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url, ordering=Ordering.SUBJECT)
    await hooks.tell(*(event(number, subject=f"escrow:{number % 3}") for number in range(300)))
    assert (await hooks.turn(hook)).delivered == 300
    for subject in range(3):
        assert [n for n in numbers(receiver) if n % 3 == subject] == list(range(subject, 300, 3))


async def test_an_endpoint_that_hangs_holds_up_no_other(hooks: Hooks, receiver: Vendor) -> None:
    """By structure: while every request of one hangs, all of the other's are delivered, from the same process."""
    async with vendor() as tarpit:
        tarpit.answer = lambda _: Reply(b"x", 200, hang=True)
        stuck = await hooks.subscribe(tarpit.url)
        fine = await hooks.subscribe(receiver.url)
        await hooks.tell(*(event(number) for number in range(100)))
        process = hooks.process(replace(QUICK, deadline_seconds=60.0, lease_seconds=130.0))
        hanging = asyncio.create_task(hooks.turn(stuck, process=process))

        async def all_hang() -> bool:
            return len(tarpit.asked) == stuck.subscription.concurrency

        await eventually(all_hang)
        done = await hooks.turn(fine, process=process)
        assert done.delivered == 100
        assert len(tarpit.asked) == stuck.subscription.concurrency
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
    assert {each.attempts[-1].result for each in await hooks.deliveries(stuck) if each.attempts} <= {
        "interrupted",
        "released",
    }
    assert {each.failures for each in await hooks.deliveries(stuck)} == {0}


async def test_two_at_once_send_nothing_twice(hooks: Hooks, receiver: Vendor) -> None:
    """There is one turn at a time; where a lost one wakes up beside another, the claim keeps them apart."""
    hook = await hooks.subscribe(receiver.url)
    await hooks.tell(*(event(number) for number in range(300)))
    await asyncio.gather(*(hooks.turn(hook) for _ in range(3)))
    assert len(receiver.asked) == len(set(received(receiver))) == 300


async def test_deliveries_of_a_deleted_endpoint_are_cancelled(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url)
    await hooks.tell(event())
    await hooks.sql("UPDATE webhook_subscriptions SET status = 'deleted', disabled_at = now()")
    assert (await hooks.turn(hook)).next_at is None
    assert only(await hooks.deliveries(hook)).status is DeliveryStatus.CANCELLED
    assert receiver.asked == []
