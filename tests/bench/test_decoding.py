"""The comparison of decoders compares what is equal."""

from __future__ import annotations

from tests.bench.decoding import measure


def test_both_read_the_same_events() -> None:
    (row,) = measure(rounds=1, events=60)
    assert row.value > 0
    assert row.ratio is not None
