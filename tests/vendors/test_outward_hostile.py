"""Receivers that behave badly: each request to them ends by its deadline, and says what is known."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct

import pytest

from activities.ports import Answered, NoAnswer, NotSent
from activities.vendors.outward import HEADER_BYTES_MAX, OutwardClient
from tests.outward import HERE, once, post, says, silent
from tests.receivers import OK, Line, receiver

MIB = 1_048_576


async def test_one_that_never_answers() -> None:
    found, there = await once(silent, deadline_seconds=1)
    assert isinstance(found, NoAnswer)
    assert found.reason == "no answer within 1 s"
    assert found.duration_ms >= 999
    assert len(there.requests) == 1, "and it may have acted on it"


async def test_one_that_drips_its_headers() -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            await line.say(b"X-Drip: 1\r\n")
            await asyncio.sleep(0.02)

    found, _ = await once(script, deadline_seconds=1)
    assert isinstance(found, NoAnswer)


async def test_one_that_drips_its_body_has_answered_and_holds_nobody_longer_than_the_deadline() -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await line.say(b"1\r\n.\r\n")
            await asyncio.sleep(0.02)

    async with receiver(script) as there:
        client = OutwardClient(allow=HERE)
        found = await post(client, there.url, deadline_seconds=1)
        assert isinstance(found, Answered)
        assert (found.status, found.truncated) == (200, True)
        assert set(found.body) == set(b".")
        async with asyncio.timeout(10):
            await there.broken.wait()
        await client.close()


@pytest.mark.parametrize("length", [b"Content-Length: 104857600", b"Transfer-Encoding: chunked"])
async def test_a_hundred_megabytes_are_not_read(length: bytes) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
        for _ in range(100):
            await line.say((b"100000\r\n" if length.endswith(b"chunked") else b"") + b"x" * MIB)
            await line.say(b"\r\n" if length.endswith(b"chunked") else b"")

    async with receiver(script) as there:
        client = OutwardClient(allow=HERE)
        found = await post(client, there.url, read_bytes=4_096)
        assert isinstance(found, Answered)
        assert (found.body, found.truncated) == (b"x" * 4_096, True)
        async with asyncio.timeout(10):
            await there.broken.wait()
        assert there.written < 20 * MIB, "what the sockets held when the connection was dropped"
        await client.close()


async def test_exactly_as_much_as_is_read_is_all() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
    for limit, truncated in ((9, True), (10, False), (0, True)):
        found, _ = await once(says(answer), read_bytes=limit)
        assert isinstance(found, Answered)
        assert (found.body, found.truncated) == (b"0123456789"[:limit], truncated)


async def test_a_bomb_is_kept_as_it_came() -> None:
    bomb = gzip.compress(bytes(50 * MIB))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    found, _ = await once(says(head + bomb), read_bytes=len(bomb))
    assert isinstance(found, Answered)
    assert (found.body, found.truncated) == (bomb, False)


async def test_one_that_says_go_on_for_ever() -> None:
    async def script(line: Line) -> None:
        await line.request()
        while True:
            await line.say(b"HTTP/1.1 103 Early\r\n\r\n")
            await asyncio.sleep(0.005)

    found, _ = await once(script, deadline_seconds=1)
    assert isinstance(found, NoAnswer)


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MIB + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 " + b"K" * MIB + b"\r\n\r\n",
    ],
)
async def test_headers_without_end_are_no_answer(flood: bytes) -> None:
    found, _ = await once(says(flood))
    assert found == NoAnswer("the answer is no HTTP", found.duration_ms if isinstance(found, NoAnswer) else 0)


async def test_of_headers_is_kept_what_can_be_stored() -> None:
    lines = b"".join(b"X-%d: %b\r\n" % (n, b"y" * 4_000) for n in range(20))
    answer = b"HTTP/1.1 200 OK\r\nX-Odd: a\x80\xffb\tc\r\nContent-Length: 0\r\n" + lines + b"\r\n"
    found, _ = await once(says(answer))
    assert isinstance(found, Answered)
    assert found.headers["x-odd"] == "a\ufffd\ufffdb c"
    assert sum(len(name) + len(value) for name, value in found.headers.items()) <= HEADER_BYTES_MAX


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x00\x05hello" * 10,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"{}\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n",
    ],
)
async def test_garbage_is_no_answer(garbage: bytes) -> None:
    found, _ = await once(says(garbage))
    assert isinstance(found, NoAnswer)
    assert found.reason == "the answer is no HTTP"


@pytest.mark.parametrize("body", [b"zz\r\nx\r\n", b"5\r\nab", b"2\r\nokXX0\r\n\r\n"])
async def test_chunks_that_are_none_leave_the_status(body: bytes) -> None:
    found, _ = await once(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
    # A parser that is handed both at once may find the fault before it tells the status.
    assert isinstance(found, NoAnswer) or (found.status, found.truncated) == (200, True)  # type: ignore[union-attr]


async def test_one_that_promises_more_than_it_sends() -> None:
    found, _ = await once(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfour"))
    assert isinstance(found, Answered)
    assert (found.status, found.body, found.truncated) == (200, b"four", True)


async def test_one_that_sends_more_than_it_promised() -> None:
    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more")

    async with receiver(script) as there:
        client = OutwardClient(allow=HERE)
        for _ in range(2):
            found = await post(client, there.url)
            assert isinstance(found, NoAnswer) or (found.status, found.body) == (200, b"ok")  # type: ignore[union-attr]
        assert there.connections == 2, "what follows is nobody's answer"
        await client.close()


def dropped(line: Line) -> None:
    """Close with a reset, as a crash does."""
    line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.writer.transport.abort()


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nConte"])
@pytest.mark.parametrize("reset", [True, False])
async def test_one_that_breaks_off_before_its_answer_is_whole(before: bytes, reset: bool) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(before)
        if reset:
            dropped(line)

    found, there = await once(script)
    assert isinstance(found, NoAnswer)
    assert len(there.requests) == 1, "nothing is sent twice"


async def test_one_that_resets_in_the_middle_of_its_body() -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\n")
        await asyncio.sleep(0.05)
        dropped(line)

    found, _ = await once(script)
    assert isinstance(found, Answered)
    assert (found.status, found.truncated) == (500, True)


async def test_one_that_resets_at_once() -> None:
    async def script(line: Line) -> None:
        dropped(line)

    found, there = await once(script)
    assert isinstance(found, NotSent | NoAnswer)
    assert there.requests == []


async def test_one_that_never_reads_a_long_body() -> None:
    async def script(line: Line) -> None:
        await asyncio.sleep(3_600)

    found, _ = await once(script, body=b"x" * 20 * MIB, deadline_seconds=1)
    assert isinstance(found, NoAnswer), "some of it may have arrived"


async def test_one_that_answers_before_it_has_read_everything() -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(3_600)

    async with receiver(script) as there:
        client = OutwardClient(allow=HERE)
        for _ in range(2):
            found = await post(client, there.url, body=b"x" * 20 * MIB)
            assert isinstance(found, Answered)
            assert found.status == 413
        assert there.connections == 2, "half a request lies on the first"
        await client.close()


async def test_an_answer_out_of_turn_is_not_taken_for_that_to_the_next_request() -> None:
    """200, and then 500 that nobody asked for: at once, or while the connection rests."""
    for pause_seconds in (0.0, 0.05):
        second_said = asyncio.Event()

        async def script(line: Line, pause: float = pause_seconds, said: asyncio.Event = second_said) -> None:
            await line.request()
            if line.number > 1:
                return await line.say(b"HTTP/1.1 204 None\r\n\r\n")
            await line.say(OK)
            await asyncio.sleep(pause)
            await line.say(b"HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n")
            said.set()
            await asyncio.sleep(3_600)
            return None

        async with receiver(script) as there:
            client = OutwardClient(allow=HERE)
            first = await post(client, there.url)
            await second_said.wait()
            await asyncio.sleep(0.02)
            second = await post(client, there.url)
            assert isinstance(first, Answered)
            assert isinstance(second, Answered)
            assert (first.status, second.status, there.connections) == (200, 204, 2)
            await client.close()


async def test_one_that_speaks_before_it_is_asked() -> None:
    async def script(line: Line) -> None:
        await line.say(b"220 mail.example ESMTP\r\n")
        await asyncio.sleep(3_600)

    found, _ = await once(script)
    assert isinstance(found, NotSent | NoAnswer)
    assert found.reason in {"the server speaks before it is asked", "the answer is no HTTP"}
