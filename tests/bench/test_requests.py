"""Commands arrive when they were planned, and each escrow's own are carried out in their order all the same."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.load import Arrival, Latencies, open_loop
from tests.bench.meter import Meter
from tests.bench.requests import COMMAND, Commands
from tests.fakes import SlowDesk

SECONDS, FASTER = 12, 100
WHOLE = [0, 1, 2, 3]


async def carried_out(desk: SlowDesk) -> tuple[list[Arrival], Latencies]:
    """A phase that arrives faster than it is served: two and three commands on an escrow wait for one another."""
    planned = [replace(one, at=one.at / FASTER) for one in Commands(desk, COMMAND).plan(SECONDS, seed=7)]
    found = await open_loop(Meter({}), planned, warm_up_seconds=0, seconds=SECONDS / FASTER)
    return planned, found[COMMAND]


async def test_commands_wait_for_forerunners_that_wait_themselves() -> None:
    desk = SlowDesk(pause_seconds=0.3)
    planned, found = await carried_out(desk)
    assert found.errors.seen == {}
    assert len(found.seconds) == len(planned)
    assert WHOLE in desk.took.values()
    assert all(steps == WHOLE[: len(steps)] for steps in desk.took.values())


async def test_what_had_nothing_to_act_on_is_told_from_what_failed() -> None:
    desk = SlowDesk(pause_seconds=0.01, broken=[0, 1])
    planned, found = await carried_out(desk)
    assert found.errors.seen == {"ValueError: no": 2, "ForerunnerFailed: fund: ValueError": 4}
    assert len(found.seconds) == len(planned) - 6
