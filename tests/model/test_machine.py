"""Random commands of random roles, money and time passing, against the real steps on the real database and a model.

After every step both must say the same about everything, and the books must add up by themselves. A run is the same
every time; ``HOLDFAST_MODEL_EXAMPLES=500`` makes a longer one with a fresh seed, which it prints.
"""

from __future__ import annotations

import pytest

from tests.model.machine import Bridge, Machine
from tests.playing import EXAMPLES, play

SHORT = 60
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


@pytest.mark.timeout(900 + 5 * EXAMPLES)
def test_everything_agrees_with_the_model_after_every_step(database_url: str) -> None:
    with Bridge(database_url) as bridge:
        play("model", lambda: Machine(bridge), bridge.met, MET, short=SHORT, steps=STEPS, kinds_min=OUTCOMES_MIN)
        print(bridge.report())  # noqa: T201 - what the run was worth
