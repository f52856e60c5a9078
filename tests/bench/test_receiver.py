"""The benches' receiver remembers what arrived, and lets hang what shall."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from kit.standardwebhooks import ID_HEADER
from tests.bench import hooks
from tests.bench.receiver import Arrivals, Line
from tests.polling import eventually


@pytest.fixture
async def url() -> AsyncIterator[str]:
    arrivals = Arrivals()
    server = await asyncio.get_running_loop().create_server(lambda: Line(arrivals), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_what_arrived_is_told_once(url: str) -> None:
    receiver = hooks.Receiver(url)
    async with aiohttp.ClientSession() as session:
        for number in range(3):
            async with session.post(
                f"{url}/fine/{number}", data=b"x" * 100_000, headers={ID_HEADER: f"m{number}"}
            ) as it:
                assert it.status == 204
    assert await receiver.count() == 3
    told = await receiver.arrivals()
    assert [(path, message) for path, message, _ in told] == [(f"/fine/{n}", f"m{n}") for n in range(3)]
    assert [at for *_, at in told] == sorted(at for *_, at in told)
    assert await receiver.count() == 0


async def test_what_hangs_is_let_go_of_together(url: str) -> None:
    receiver = hooks.Receiver(url)

    async def arrived() -> bool:
        return await receiver.count() == 2

    async with aiohttp.ClientSession() as session:
        waiting = [asyncio.create_task(session.post(f"{url}/hang", headers={ID_HEADER: str(n)})) for n in range(2)]
        await eventually(arrived)
        assert not any(task.done() for task in waiting)
        await receiver.release()
        for end in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(end, aiohttp.ClientError)


async def test_the_bare_client_signs_everything_that_it_sends(url: str) -> None:
    assert await hooks.bare(f"{url}/fine", 50) > 0
    told = await hooks.Receiver(url).arrivals()
    assert len({message for _, message, _ in told}) == 50
