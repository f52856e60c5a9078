"""What holds of every refresh, whatever sources say."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.prices.aggregation import refresh
from domain.prices.model import Policy, Quality, Reading, Standing
from tests.domain.prices import NOW, Market, dollars, reading

PRICES = st.integers(min_value=-(10**18), max_value=10**23)
READINGS = st.builds(
    lambda source, price, confidence, age, fault, unit: reading(
        source,
        price,
        NOW - timedelta(seconds=age),
        confidence=confidence,
        fault="away" if fault else None,
        unit=unit,
    ),
    st.sampled_from("abcdef"),
    PRICES | st.integers(min_value=dollars("99"), max_value=dollars("101")),
    st.integers(min_value=0, max_value=10**18),
    st.integers(min_value=-120, max_value=600),
    st.sampled_from([False, False, False, True]),
    st.sampled_from(["USD", "USD", "USD", "USDT"]),
)
POLICIES = st.builds(
    Policy,
    quorum=st.integers(1, 4),
    band_bps=st.integers(1, 500),
    jump_bps=st.integers(1, 5_000),
    persistence=st.integers(1, 3),
    persistence_seconds=st.sampled_from([0, 5, 30]),
)
UNITS = {"USDT": Market(Policy()).say(a="1.001").price}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(READINGS, max_size=6), min_size=1, max_size=6), POLICIES, st.randoms(use_true_random=False))
def test_through_any_refreshes(rounds: list[list[Reading]], policy: Policy, chance: object) -> None:
    standing: Standing | None = None
    units = {name: price for name, price in UNITS.items() if price is not None}
    for number, readings in enumerate(rounds):
        now = NOW + timedelta(seconds=15 * number)
        found = refresh("ETH", readings, policy, standing=standing, units=units, now=now)
        shuffled = list(readings)
        chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's own Random
        again = refresh("ETH", shuffled, policy, standing=standing, units=units, now=now)
        assert (again.price, again.carried, again.changed) == (found.price, found.carried, found.changed)

        price = found.price
        if price is None:
            assert standing is None
            continue
        assert 0 < price.low <= price.mid <= price.high
        accepted = [each for each in found.verdicts if each.left_out is None]
        if price.quality is Quality.STALE:
            assert standing is not None
            assert (price.mid, price.as_of, price.tick) == (
                standing.price.mid,
                standing.price.as_of,
                standing.price.tick,
            )
            assert not price.confirmed
            assert price.reason
        else:
            assert len({each.reading.source for each in accepted}) >= policy.quorum
            assert min(e.price for e in accepted) <= price.mid <= max(e.price for e in accepted)
            assert price.low <= min(e.low for e in accepted)
            assert max(e.high for e in accepted) <= price.high
            assert price.as_of <= now
        if price.confirmed:
            assert found.carried.anchor is not None
            assert found.carried.anchor.mid == price.mid
            assert price.reason is None
        if standing is not None and not price.confirmed and standing.carried.anchor is not None:
            assert found.carried.anchor == standing.carried.anchor, "only a confirmed price replaces the one before"
        standing = Standing(price, found.carried)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(dollars("99.9"), dollars("100.1")), min_size=2, max_size=2),
    st.integers(1, 10**24),
    st.integers(0, 10**18),
)
def test_one_liar_among_three_never_moves_the_price_outside_what_is_honest(
    honest: list[int], lie: int, confidence: int
) -> None:
    found = refresh(
        "ETH",
        [reading("a", honest[0]), reading("b", honest[1]), reading("liar", lie, confidence=confidence)],
        Policy(quorum=2),
        standing=None,
        units={},
        now=NOW,
    )
    assert found.price is not None, "the two honest ones are a quorum"
    assert min(honest) <= found.price.mid <= max(honest)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**24), st.integers(1, 10**24))
def test_a_jump_is_never_confirmed_the_first_time(before: int, after: int) -> None:
    market = Market(Policy(quorum=1))
    market.refresh(reading("a", before))
    market.refresh(reading("a", after, market.now))
    small = abs(after - before) * 10_000 <= 1_000 * before
    assert market.price.confirmed == small
    assert market.price.low <= min(before, after) or small
    assert market.price.high >= max(before, after) or small
