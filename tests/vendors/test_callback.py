"""Callbacks to users' own systems."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import standardwebhooks

from activities.ports import Callback, CallbackSender, Handed, NotTaken, Outward, Rejected, Taken, Unsure
from activities.vendors.callback import CallbackClient
from activities.vendors.outward import OutwardClient
from db.ids import new_id
from kit.clock import now
from kit.standardwebhooks import PrivateKey, SharedSecret, verify
from tests.outward import HERE, says, silent
from tests.receivers import Line, Script, obedient, receiver

SECRET = SharedSecret.generate()
BODY = b'{"kind":"margin_call"}'


@pytest.fixture
async def outward() -> AsyncIterator[Outward]:
    client = OutwardClient(allow=HERE)
    yield client
    await client.close()


def callback(url: str) -> Callback:
    return Callback(attempt_id=new_id(), message_id="alert_1", url=url, secret=SECRET.key, body=BODY)


async def handed(outward: Outward, script: Script, **how: Any) -> Handed:
    async with receiver(script) as there:
        return await CallbackClient(outward, **how).send(callback(there.url))


async def test_it_is_signed_and_what_2xx_says_is_delivered(outward: Outward) -> None:
    house = PrivateKey.generate()
    async with receiver(obedient) as there:
        sender: CallbackSender = CallbackClient(outward, house=house)
        for _ in range(2):
            assert await sender.send(callback(there.url)) == Taken("alert_1", "HTTP 200", delivered=True)
        first, second = there.requests
        assert first.headers["content-type"] == "application/json"
        for request in (first, second):
            assert request.headers["webhook-id"] == "alert_1", "the same over attempts"
            assert standardwebhooks.Webhook(SECRET.text).verify(request.body, dict(request.headers))
            assert verify(request.headers, request.body, [house.public], now=now()) == "alert_1"


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("204 None\r\n\r\n", Taken("alert_1", "HTTP 204", delivered=True)),
        ("301 Moved\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", Rejected("http_301", "HTTP 301")),
        ("400 Bad\r\nContent-Length: 4\r\n\r\nno\x00!", Rejected("http_400", "HTTP 400: no !")),
        ("404 Not here\r\nContent-Length: 0\r\n\r\n", Rejected("http_404", "HTTP 404")),
        ("410 Gone\r\nContent-Length: 0\r\n\r\n", Rejected("http_410", "HTTP 410")),
        ("429 Slow\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", NotTaken("HTTP 429", 30.0)),
        ("429 Slow\r\nRetry-After: 999999\r\nContent-Length: 0\r\n\r\n", NotTaken("HTTP 429", 3_600.0)),
        (
            "503 Later\r\nRetry-After: Thu, 26 Nov 2020 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
            NotTaken("HTTP 503", 0.0),
        ),
        ("503 Later\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", NotTaken("HTTP 503")),
        ("500 Oh\r\nContent-Length: 0\r\n\r\n", Unsure("HTTP 500")),
        ("502 Oh\r\nContent-Length: 0\r\n\r\n", Unsure("HTTP 502")),
        ("rubbish\r\n\r\n", Unsure("the answer is no HTTP")),
    ],
)
async def test_what_answers_mean(outward: Outward, answer: str, wanted: Handed) -> None:
    assert await handed(outward, says(f"HTTP/1.1 {answer}".encode())) == wanted


async def test_no_answer_is_unsure_and_no_connection_is_not_taken(outward: Outward) -> None:
    assert await handed(outward, silent, deadline_seconds=1) == Unsure("no answer within 1 s")

    async def gone(line: Line) -> None:
        await line.request()

    assert await handed(outward, gone) == Unsure("the server closed the connection without an answer")
    async with receiver() as there:
        url = there.url
    assert await CallbackClient(outward).send(callback(url)) == NotTaken("no connection: refused")


async def test_an_address_inside_will_never_do(outward: Outward) -> None:
    found = await CallbackClient(outward).send(callback("https://169.254.169.254/latest/meta-data"))
    assert isinstance(found, Rejected)
    assert found.code == "address_refused"
