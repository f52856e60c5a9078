"""What is done to the stack: kills and broken wires, at instants and with victims that follow from the seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.cable import Fault
from tests.soak.fleet import ROLES, WIRES, Fleet

DOWN_SECONDS_MAX = 3.0
BROKEN_SECONDS = (0.5, 4.0)
#: Wires that break for each process that is killed, on average.
BREAKS_PER_KILL = 0.6
#: The share of kills that do not wait until the one before is got over.
WHILE_DOWN = 0.3
#: How long a kill waits for its victim to be up, and for the one before to be got over.
PATIENCE_SECONDS = 20.0
#: Where a connection may fall silent without an end. To Temporal it takes the SDK's 45 seconds until it notices.
SILENT = ("client-api", "api-postgres", "worker-postgres")
FAULTS = (Fault.CUT, Fault.CUT, Fault.STALLED, Fault.SWALLOWING, Fault.SLOW)


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was ended by SIGKILL."""

    role: str
    at_seconds: float
    downtime_seconds: float


@dataclass(slots=True)
class Chaos:
    """The damage so far. Instants are ``time.monotonic()``."""

    fleet: Fleet
    seed: str
    kills_wanted: int
    seconds: float
    say: Callable[[str], None]
    has_recovered_since: Callable[[float], bool]
    kills: list[Kill] = field(default_factory=list)
    over: bool = False
    breaks: Counter[str] = field(default_factory=Counter)

    @property
    def progress(self) -> float:
        """The share of the kills that are done; all once it is over."""
        return 1.0 if self.over or not self.kills_wanted else len(self.kills) / self.kills_wanted

    async def run(self) -> None:
        """Do all of it; at the end every wire is whole and every process is on its way back."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._kill_all())
                group.create_task(self._break_all())
        finally:
            self.over = True
            self.fleet.mend_all()

    async def _kill_all(self) -> None:
        chance = random.Random(f"{self.seed}:kills")
        victims = [role for n in range(self.kills_wanted) for role in [ROLES[n % len(ROLES)]]]
        chance.shuffle(victims)
        mean = self.seconds / max(1, self.kills_wanted)
        for role in victims:
            await asyncio.sleep(chance.uniform(0.1, 1.9) * mean)
            if chance.random() > WHILE_DOWN:
                await self._recovered()
            downtime = chance.choice((0.0, chance.uniform(0, 1), chance.uniform(0, DOWN_SECONDS_MAX)))
            await self._kill(role, downtime)

    async def _recovered(self) -> None:
        """Wait until the last kill is got over, on a machine however slow, with a limit."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.kills and time.monotonic() < deadline:
            if self.has_recovered_since(self.kills[-1].at_seconds):
                return
            await asyncio.sleep(0.1)

    async def _kill(self, role: str, downtime: float) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.fleet.wards[role].kill(downtime):
            if time.monotonic() > deadline:
                raise AssertionError(f"{role} did not come back within {PATIENCE_SECONDS:g} seconds")
            await asyncio.sleep(0.1)
        self.kills.append(Kill(role, time.monotonic(), downtime))
        self.say(f"killed {role}, down for {downtime:.1f} s")

    async def _break_all(self) -> None:
        chance = random.Random(f"{self.seed}:wires")
        for _ in range(round(self.kills_wanted * BREAKS_PER_KILL)):
            await asyncio.sleep(chance.uniform(0.1, 1.9) * self.seconds / (self.kills_wanted * BREAKS_PER_KILL) / 2)
            name, fault = chance.choice(WIRES), chance.choice(FAULTS)
            seconds = chance.uniform(*BROKEN_SECONDS)
            self.breaks[fault] += 1
            self.say(f"{name} {fault} for {seconds:.1f} s")
            self.fleet.wires[name].break_(fault)
            await asyncio.sleep(seconds)
            # Connections that lost something stay silent for ever where nobody tells their ends.
            self.fleet.wires[name].mend(reset=name not in SILENT or chance.random() < 0.5)
