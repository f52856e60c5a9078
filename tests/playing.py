"""Plays a state machine of Hypothesis, and demands that the stories met what they are told for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Set
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

#: A long run, with a fresh seed; 0 for the short one, which is the same every time.
EXAMPLES = int(os.environ.get("HOLDFAST_MODEL_EXAMPLES", "0"))
#: The same seed was seen to draw other stories in another process: a run that has not met everything plays on.
ROUNDS_MAX = 3


def play(
    name: str,
    machine: Callable[[], Any],
    met: Collection[str],
    must: Set[str],
    *,
    short: int,
    steps: int,
    kinds_min: int = 0,
    phases: Collection[Phase] = tuple(Phase),
) -> None:
    """Play ``short`` stories, or as many as the environment says, of ``steps`` each.

    ``met`` grows as the machine plays; by the end all of ``must`` is in it, and ``kinds_min`` in all. A run too short
    to show that is played once and demands nothing.
    """
    examples = EXAMPLES or short
    chosen = random.SystemRandom().getrandbits(32) if EXAMPLES else 0
    print(f"{name}: {examples} examples, seed {chosen}")  # noqa: T201 - to be repeated by
    for place in range(ROUNDS_MAX if examples >= short else 1):
        run_state_machine_as_test(
            seed(chosen + place)(machine),  # type: ignore[arg-type] # a factory will do
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                print_blob=True,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )
        if set(met) >= must and len(met) >= kinds_min:
            return
    assert examples < short or not must - set(met), f"the stories never met {must - set(met)}"
    assert examples < short or len(met) >= kinds_min, f"the stories met {len(met)} kinds of {kinds_min}"
