"""What stands between us and every source: time, size, rate, breaker, and never an exception."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from activities.vendors.coingecko import CoinGeckoPrices
from activities.vendors.guard import Circuit, GuardedSource, Limits, SourceFault
from domain.prices.model import Reading
from kit.pricing import CoinGecko
from tests.vendors.server import Vendor

KEY = "CG-very-secret"
FINE = {"ethereum": {"usd": 2345.67, "last_updated_at": 1_790_000_000}}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Stub(GuardedSource):
    """A source that does as the test says."""

    assets = ("ETH",)

    def __init__(self, clock: Clock, **limits: Any) -> None:
        super().__init__("stub", Limits(**limits), clock=clock)
        self.fault: Exception | None = None
        self.calls = 0

    def feed_of(self, asset: str) -> str:
        return f"stub:{asset}"

    async def fetch(self) -> Sequence[Reading]:
        self.calls += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return [Reading("stub", "ETH", "stub:ETH", price=self.calls)]


def gecko(url: str, **limits: Any) -> CoinGeckoPrices:
    feeds: Any = {"ETH": {"id": "ethereum"}}
    config = CoinGecko(kind="coingecko", base_url=url, feeds=feeds, max_body_bytes=10_000)
    return CoinGeckoPrices("gecko", config, Limits(**({"timeout_seconds": 0.3} | limits)), KEY)


async def faults(source: GuardedSource) -> list[str | None]:
    return [reading.fault for reading in await source.read()]


async def test_a_source_that_hangs_is_given_up(served: Vendor) -> None:
    served.say(FINE, hang=True)
    source = gecko(served.url)
    assert await faults(source) == ["no answer within 0.3 s"]
    await source.close()


async def test_a_body_without_end_is_cut_off(served: Vendor) -> None:
    served.say(b"", endless=True)
    source = gecko(served.url, timeout_seconds=5)
    assert await faults(source) == ["a body of more than 10000 bytes"]
    await source.close()


async def test_a_source_that_is_not_there_is_named_without_its_address(
    served: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        source = gecko("http://127.0.0.1:1/secret-path")
        [fault] = await faults(source)
        served.say(FINE)
        there = gecko(f"{served.url}/secret-path")
        assert await faults(there) == [None]
    assert fault is not None
    assert fault.startswith("no connection: ")
    told = fault + "".join(str(record.__dict__) for record in caplog.records if record.name.startswith(("act", "http")))
    assert KEY not in told
    assert "secret-path" not in told
    await source.close()
    await there.close()


async def test_a_redirect_is_not_followed(served: Vendor) -> None:
    served.say(b"", 302, headers={"Location": f"{served.url}/elsewhere"})
    source = gecko(served.url)
    assert await faults(source) == ["HTTP 302"]
    assert len(served.asked) == 1
    await source.close()


async def test_the_breaker_opens_is_tried_and_closes() -> None:
    clock = Clock()
    source = Stub(clock, breaker_failures=3, breaker_seconds=60, calls_per_minute=1_000)
    source.fault = SourceFault("status", "HTTP 500")
    assert [await faults(source) for _ in range(3)] == [["HTTP 500"]] * 3
    stood = [source.circuit]
    assert await faults(source) == ["its circuit breaker is open"]
    assert source.calls == 3
    clock.now += 60
    stood.append(source.circuit)
    assert await faults(source) == ["HTTP 500"]
    stood.append(source.circuit)
    clock.now += 60
    source.fault = None
    assert await faults(source) == [None]
    stood.append(source.circuit)
    assert stood == [Circuit.OPEN, Circuit.HALF_OPEN, Circuit.OPEN, Circuit.CLOSED], "one failed try opens it again"


async def test_a_source_that_asks_for_time_is_given_it_and_answers_as_before_meanwhile() -> None:
    clock = Clock()
    source = Stub(clock, calls_per_minute=1_000)
    assert [each.price for each in await source.read()] == [1]
    source.fault = SourceFault("rate_limited", "HTTP 429: too many calls", retry_after_seconds=100)
    clock.now += 10
    assert [each.price for each in await source.read()] == [1], "it said so 10 seconds ago"
    clock.now += 51
    assert await faults(source) == ["its circuit breaker is open"], "that is too long ago"
    source.fault = None
    clock.now += 48
    assert source.circuit is Circuit.OPEN
    clock.now += 2
    assert [each.price for each in await source.read()] == [3]


async def test_a_fault_that_does_not_pass_opens_the_breaker_at_once() -> None:
    source = Stub(Clock(), breaker_failures=5)
    source.fault = SourceFault("denied", "HTTP 401", final=True)
    assert await faults(source) == ["HTTP 401"]
    assert source.circuit is Circuit.OPEN


async def test_a_bug_is_a_fault_like_any_other() -> None:
    source = Stub(Clock())
    source.fault = KeyError(KEY)
    assert await faults(source) == ["a bug of ours: KeyError"]


async def test_the_rate_is_ours_to_keep() -> None:
    clock = Clock()
    source = Stub(clock, calls_per_minute=2)
    assert [(await source.read())[0].price for _ in range(4)] == [1, 2, 2, 2]
    clock.now += 60
    assert (await source.read())[0].price == 3


async def test_asked_again_at_once_it_answers_as_before() -> None:
    clock = Clock()
    source = Stub(clock, spacing_seconds=2)
    found = await asyncio.gather(*(source.read() for _ in range(20)))
    assert {each[0].price for each in found} == {1}
    clock.now += 2
    assert (await source.read())[0].price == 2


async def test_one_that_is_cancelled_half_open_does_not_stay_so() -> None:
    clock = Clock()
    source = Stub(clock, breaker_failures=1, breaker_seconds=60)
    source.fault = SourceFault("status", "HTTP 500")
    await source.read()
    clock.now += 60
    source.fault = asyncio.CancelledError()  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await source.read()
    source.fault = None
    assert await faults(source) == [None]
