"""What asks at once may come to: what they would one after the other, in one order or another."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import permutations
from typing import Any

from tests.model.asks import Ask, agrees, supposedly
from tests.model.books import World
from tests.model.database import differences


def explained(world: World, asks: Sequence[Ask], answers: Sequence[str], found: dict[str, dict[Any, Any]]) -> World:
    """The world after an order of the asks that leads to these answers and to what was found; fails without one."""
    complaints = []
    for order in permutations(range(len(asks))):
        after, said = deepcopy(world), dict[int, str]()
        for index in order:
            said[index] = supposedly(asks[index], after)
        if not all(agrees(said[index], answer) for index, answer in enumerate(answers)):
            complaints.append(f"{order}: {said}")
        elif different := differences(after.describe(), found):
            complaints.append(f"{order}: {different}")
        else:
            return after
    raise AssertionError(f"no order explains {answers}: {complaints}")
