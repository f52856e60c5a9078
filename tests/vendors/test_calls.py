"""The threads that blocking SDKs run in: bounded, each call within a limit, and certain of what did not begin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from activities.vendors.calls import Gate, NotReached, Overdue, Threads
from tests.polling import eventually


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    made = Threads("test", 1, 0.2, begin_seconds=0.1)
    yield made
    await made.close()


async def test_a_call_returns_or_raises_what_its_work_does(threads: Threads) -> None:
    assert await threads.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.call(lambda: 1 // 0)
    assert await threads.call(threading.current_thread) is not threading.current_thread()


async def test_what_cannot_begin_in_time_never_does(threads: Threads) -> None:
    release, begun = threading.Event(), list[int]()
    first = asyncio.create_task(threads.call(lambda: release.wait(5)))
    await asyncio.sleep(0)
    with pytest.raises(NotReached, match="1 other calls"):
        await threads.call(lambda: begun.append(1))
    with pytest.raises(Overdue):
        await first
    release.set()
    assert await threads.call(lambda: 7) == 7
    assert not begun


async def test_calls_that_hang_are_written_off_up_to_a_bound(threads: Threads) -> None:
    """A thread cannot be ended, so those that hang take their place with them; but not every place."""
    release, begun = threading.Event(), list[int]()
    for _ in range(3):
        with pytest.raises(Overdue):
            await threads.call(lambda: release.wait(30))
    assert await threads.call(lambda: 7) == 7
    with pytest.raises(Overdue):
        await threads.call(lambda: release.wait(30))
    with pytest.raises(NotReached, match="too many calls hang"):
        await threads.call(lambda: begun.append(1))
    release.set()

    async def free_again() -> bool:
        try:
            return await threads.call(lambda: True)
        except NotReached:
            return False

    await eventually(free_again)
    assert not begun


async def test_an_interrupted_call_gives_its_place_back(threads: Threads) -> None:
    release = threading.Event()
    task = asyncio.create_task(threads.call(lambda: release.wait(5)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await threads.call(lambda: 7) == 7
    release.set()


async def test_threads_can_be_used_again_after_they_were_closed(threads: Threads) -> None:
    await threads.call(lambda: 7)
    await threads.close()
    assert await threads.call(lambda: 7) == 7


def test_whoever_comes_first_decides_whether_something_is_sent() -> None:
    gate = Gate()
    gate.enter()
    assert not gate.close()
    gate = Gate()
    assert gate.close()
    with pytest.raises(NotReached):
        gate.enter()
    assert gate.close()


def test_of_two_at_once_exactly_one_is_believed() -> None:
    for _ in range(200):
        gate, sent = Gate(), list[bool]()

        def send(gate: Gate = gate, sent: list[bool] = sent) -> None:
            try:
                gate.enter()
            except NotReached:
                return
            sent.append(True)

        thread = threading.Thread(target=send)
        thread.start()
        nothing = gate.close()
        thread.join()
        assert nothing is not bool(sent)
