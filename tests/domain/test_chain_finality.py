"""What is final, and how the watermarks follow the head: seen, confirmed, final, and never back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chain import Block, Head
from domain.chain.following import Depths, Position, final_number, marked


def head(number: int, finalized: int | None = None) -> Head:
    return Head(Block(number, bytes(32), bytes(32), 0), finalized)


@pytest.mark.parametrize(
    ("seen", "finality", "final"),
    [
        (head(100, 36), None, 36),
        (head(100, 36), 10, 90),
        (head(100, 100), 64, 36),
        (head(100), 6, 94),
        (head(100), None, None),
    ],
)
def test_a_depth_that_was_chosen_goes_before_the_chains_own_word(
    seen: Head, finality: int | None, final: int | None
) -> None:
    assert final_number(seen, Depths(2, finality)) == final


@given(
    seen=st.lists(st.tuples(st.integers(0, 200), st.none() | st.integers(0, 200)), min_size=1, max_size=20),
    confirmations=st.integers(0, 20),
    finality=st.none() | st.integers(0, 20),
)
def test_watermarks_are_in_order_and_never_go_back(
    seen: list[tuple[int, int | None]], confirmations: int, finality: int | None
) -> None:
    position = Position(number=100, hash=None, last_sequence=0, confirmed=-1, finalized=-1)
    for number, finalized in seen:
        after = marked(position, head(number, finalized), Depths(confirmations, finality))
        assert position.finalized <= after.finalized <= after.confirmed <= after.number == 100
        assert position.confirmed <= after.confirmed
        position = after
