"""Random commands of random roles, money and time passing, against the real steps on the real database and a model.

After every step both must say the same about everything, and the books must add up by themselves. A run is the same
every time; ``HOLDFAST_MODEL_EXAMPLES=500`` makes a longer one with a fresh seed, which it prints.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Bridge, Machine

EXAMPLES = int(os.environ.get("HOLDFAST_MODEL_EXAMPLES", "0"))
SHORT = 45
STEPS = 40

#: What a run must have met, or it shows less than it says.
MET = {
    *(f"{kind}: done" for kind in ("open", "fund", "approve", "release", "refund", "dispute", "resolve", "cancel")),
    *(f"{kind}: done" for kind in ("pass_deadline", "deposit", "transfer", "chain", "transfer_hold", "post")),
    *(f"{kind}: done" for kind in ("freeze", "lift", "bound")),
    *(f"{kind}: insufficient_funds" for kind in ("fund", "transfer", "transfer_hold", "chain")),
    "release: amount_exceeds_remaining",
    "refund: amount_exceeds_remaining",
}
OUTCOMES_MIN = 100
#: What is drawn also depends on which modules are loaded, so a run that has not met all of it plays on.
ROUNDS_MAX = 3


@pytest.mark.timeout(900 + 5 * EXAMPLES)
def test_everything_agrees_with_the_model_after_every_step(database_url: str) -> None:
    chosen = random.SystemRandom().getrandbits(32) if EXAMPLES else 0
    print(f"model: {EXAMPLES or SHORT} examples, seed {chosen}")  # noqa: T201 - to be repeated by
    with Bridge(database_url) as bridge:
        for more in range(ROUNDS_MAX):
            _play(bridge, chosen + more)
            if bridge.met.keys() >= MET and len(bridge.met) >= OUTCOMES_MIN:
                break
        print(bridge.report())  # noqa: T201 - what the run was worth
        if not 0 < EXAMPLES < SHORT:
            assert bridge.met.keys() >= MET
            assert len(bridge.met) >= OUTCOMES_MIN


def _play(bridge: Bridge, chosen: int) -> None:
    @seed(chosen)
    def machine() -> Machine:
        return Machine(bridge)

    run_state_machine_as_test(
        machine,  # type: ignore[arg-type] # a factory will do
        settings=settings(
            max_examples=EXAMPLES or SHORT,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
