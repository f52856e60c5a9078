"""The one door outwards: what is sent, by which connections, and what is known when there is none."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress

import pytest

from activities.ports import Answered, NotSent
from activities.vendors.outward import OutwardClient
from domain.webhooks.addresses import Reach
from tests.outward import HERE, once, post, says, silent
from tests.polling import eventually
from tests.receivers import OK, Line, receiver


async def test_the_body_arrives_as_it_is_and_the_answer_comes_back() -> None:
    body = b'{"b" : "\xc3\xa9",\n"a":1.0}'
    answer = b"HTTP/1.1 201 Made\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: 4\r\n\r\nfine"
    found, there = await once(says(answer), body=body, headers={"webhook-id": "msg_1", "content-type": "text/x"})
    assert isinstance(found, Answered)
    assert (found.status, found.body, found.truncated) == (201, b"fine", False)
    assert found.headers == {"x-two": "1, 2", "content-length": "4"}
    [request] = there.requests
    assert request.body == body
    wanted = {"webhook-id": "msg_1", "content-type": "text/x", "user-agent": "Holdfast-Webhooks"}
    assert wanted.items() <= request.headers.items()
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [204, 302, 400, 410, 429, 500, 503, 599])
async def test_every_status_is_an_answer(status: int) -> None:
    found, _ = await once(says(f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n".encode()))
    assert isinstance(found, Answered)
    assert (found.status, found.headers["retry-after"], found.truncated) == (status, "7", False)


async def test_connections_are_used_again_and_carry_no_cookie() -> None:
    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async with receiver(script) as there:
        client = OutwardClient(allow=HERE)
        for _ in range(3):
            assert isinstance(await post(client, there.url), Answered)
        assert (there.connections, len(there.requests)) == (1, 3)
        assert all("cookie" not in request.headers for request in there.requests)
        await client.close()
        assert isinstance(await post(client, there.url), Answered), "a closed one opens again"
        await client.close()


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = OutwardClient(allow=HERE)
        found = await post(client, f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert found == NotSent("no connection: refused")
        await client.close()


async def test_where_no_connection_comes_about_nothing_was_sent() -> None:
    """A queue of connections that is full: the system lets further ones wait."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(where)
            waiting.append(one)
        client = OutwardClient(allow=HERE)
        found = await post(client, f"http://127.0.0.1:{where[1]}/", deadline_seconds=0.3)
        assert found == NotSent("no connection within 0.3 s")
        await client.close()
        for one in waiting:
            one.close()


async def test_one_that_hangs_does_not_hold_up_another_at_the_same_host() -> None:
    async def script(line: Line) -> None:
        while True:
            request = await line.request()
            if request.path == "/hook":
                await asyncio.sleep(3_600)
            await line.say(OK)

    async with receiver(script) as there:
        client = OutwardClient(allow=HERE)
        stuck = [asyncio.create_task(post(client, there.url, deadline_seconds=60)) for _ in range(300)]

        async def all_there() -> bool:
            return len(there.requests) == len(stuck)

        await eventually(all_there)
        assert isinstance(await post(client, f"http://127.0.0.1:{there.port}/fine"), Answered)
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        ends = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        await client.close()


async def test_a_name_that_nobody_answers_for_holds_one_thread_and_nobody_else() -> None:
    answer, asked = threading.Event(), []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        if host == "slow.example.com":
            answer.wait(30)
        if host == "none.example.com":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return ["127.0.0.1"]

    async with receiver() as there:
        client = OutwardClient(allow=Reach.parse("*.example.com"), lookup=lookup)
        urls = [f"http://slow.example.com:{port}/" for port in range(2_000, 2_100)]
        slow = [asyncio.create_task(post(client, url, deadline_seconds=0.3)) for url in urls]
        fast = await post(client, f"http://fast.example.com:{there.port}/")
        assert isinstance(fast, Answered)
        assert await post(client, f"http://none.example.com:{there.port}/") == NotSent("its name is not known")
        assert set(await asyncio.gather(*slow)) == {NotSent("no connection within 0.3 s")}
        assert asked.count("slow.example.com") == 1
        answer.set()
        await client.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1"},
        {"content-length": "1"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "upgrade"},
        {"x": "a\r\nx-injected: 1"},
        {"x\r\ny": "1"},
        {"x y": "1"},
        {"": "1"},
        {"x": "é"},
        {"x": "a\x00b"},
    ],
)
async def test_headers_that_are_not_the_callers(headers: Mapping[str, str]) -> None:
    found, there = await once(says(OK), headers=headers)
    assert isinstance(found, NotSent)
    assert there.connections == 0


async def test_a_request_that_is_cancelled_lets_go_of_its_connection() -> None:
    async with receiver(silent) as there:
        client = OutwardClient(allow=HERE)
        task = asyncio.create_task(post(client, there.url))

        async def arrived() -> bool:
            return bool(there.requests)

        await eventually(arrived)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client._session is not None
        assert client._session.connector is not None
        assert not client._session.connector._acquired
        await client.close()
