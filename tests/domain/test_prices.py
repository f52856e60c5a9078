"""How readings become a price: each rule with an example that breaks it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from domain.prices.model import Policy, Quality, Reading, price_of, price_text
from domain.prices.validity import judge
from tests.domain.prices import NOW, SECOND, Market, dollars, reading

TWO = Policy(quorum=2)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (reading("a", "1", NOW - 301 * SECOND), "too old: 301 s, 300 s at most"),
        (reading("a", "1", NOW + 61 * SECOND), "observed in the future"),
        (reading("a", "1", observed_at=None), "does not say when"),
        (reading("a", 0), "not positive"),
        (reading("a", -5), "not positive"),
        (reading("a", "9.99"), "below its least plausible price: 9.99 under 10"),
        (reading("a", "100.01"), "above its highest plausible price"),
        (reading("a", "50", confidence=dollars("1.01")), "too uncertain: 1.01 either way"),
        (reading("a", "50", confidence=-1), "a negative confidence"),
        (reading("a", "50", unit="ETH"), "in ETH, which has no fresh price"),
        (Reading("a", "X", "a:X", fault="HTTP 500"), "HTTP 500"),
    ],
)
def test_a_reading_that_may_not_count_says_why(wrong: Reading, why: str) -> None:
    policy = Policy(min_price=dollars("10"), max_price=dollars("100"), max_confidence_bps=200)
    left_out = judge(wrong, policy, {}, NOW).left_out
    assert left_out is not None
    assert why in left_out


def test_what_lies_on_a_bound_is_valid() -> None:
    policy = Policy(min_price=dollars("10"), max_price=dollars("100"), max_confidence_bps=200)
    for fine in (
        reading("a", "10"),
        reading("a", "100"),
        reading("a", "50", NOW - 300 * SECOND),
        reading("a", "50", NOW + 60 * SECOND),
        reading("a", "50", confidence=dollars("1")),
    ):
        assert judge(fine, policy, {}, NOW).left_out is None


def test_the_median_of_those_that_agree() -> None:
    found = Market(TWO).say(a="100", b="100.5", c="99.9").price
    assert found is not None
    assert (found.mid, found.low, found.high) == (dollars("100"), dollars("99.9"), dollars("100.5"))
    assert (found.quality, found.confirmed, found.sources) == (Quality.GOOD, True, ("a", "b", "c"))


def test_confidence_widens_what_a_price_may_be() -> None:
    market = Market(Policy(quorum=1))
    found = market.refresh(reading("pyth", "100", confidence=dollars("0.5"))).price
    assert found is not None
    assert (found.low, found.mid, found.high) == (dollars("99.5"), dollars("100"), dollars("100.5"))


def test_an_outlier_is_left_out_and_named() -> None:
    found = Market(TWO).say(a="100", b="100.1", c="130")
    assert found.price is not None
    assert (found.price.mid, found.price.high) == (dollars("100.05"), dollars("100.1"))
    assert found.price.quality is Quality.DEGRADED
    assert [verdict.left_out for verdict in found.verdicts] == [None, None, "an outlier: 130, the median is 100.1"]


def test_two_that_disagree_make_no_price() -> None:
    """With two, the deviation of each is that of both: none is an outlier, and nobody knows who lies."""
    market = Market(TWO)
    assert market.say(a="100", b="65").price is None
    market.say(a="100", b="100")
    found = market.say(a="100", b="65")
    assert (market.price.mid, market.price.quality, market.price.confirmed) == (dollars("100"), Quality.STALE, False)
    assert market.price.reason == "no quorum: 0 of 2 sources agree; they say 65 to 100"
    assert (market.price.low, market.price.high) == (dollars("65"), dollars("100")), (
        "who borrows is not helped by a lie"
    )
    assert found.changed
    assert not market.say(a="100", b="65").changed, "what stays as it is makes no tick"
    assert market.say(a="100", b="100").changed
    assert (market.price.low, market.price.quality, market.price.confirmed) == (dollars("100"), Quality.GOOD, True)


def test_the_same_source_twice_is_no_quorum() -> None:
    market = Market(TWO)
    found = market.refresh(reading("a", "100"), reading("a", "100", feed="a:other"))
    assert found.price is None


def test_without_quorum_the_last_good_price_stays() -> None:
    market = Market(TWO)
    market.say(a="100", b="100.2")
    before = market.price
    market.say(a=None, b="100")
    assert (market.price.mid, market.price.as_of) == (before.mid, before.as_of)
    assert market.price.quality is Quality.STALE
    assert not market.price.confirmed
    assert market.price.reason == "no quorum: 1 of 2 sources agree"


def test_a_feed_that_is_frozen_ages_out() -> None:
    market = Market(Policy(quorum=1), every=100)
    qualities = [market.refresh(reading("a", "100", NOW)).price for _ in range(5)]
    assert [each.quality for each in qualities if each] == [Quality.GOOD] * 4 + [Quality.STALE]


def test_a_jump_is_confirmed_when_it_stays() -> None:
    market = Market(TWO)
    market.say(a="100", b="100")
    market.say(a="60", b="60")
    price = market.price
    assert (price.mid, price.low, price.high, price.confirmed) == (dollars("60"), dollars("60"), dollars("100"), False)
    assert price.reason == "a move from 100 to 60, seen 1 of 2 times in a row"
    market.say(a="59", b="59.1")
    assert market.price.confirmed
    assert (market.price.low, market.price.high) == (dollars("59"), dollars("59.1"))


def test_a_jump_that_does_not_stay_is_forgotten() -> None:
    market = Market(TWO)
    for a, b in (("100", "100"), ("60", "60"), ("100", "100")):
        market.say(a=a, b=b)
    assert (market.price.confirmed, market.price.low) == (True, dollars("100"))
    market.say(a="60", b="60")
    assert not market.price.confirmed, "the first time counts from the beginning again"
    market.say(a=None, b="60")
    market.say(a="60", b="60")
    assert not market.price.confirmed, "in between it was not seen"
    market.say(a="20", b="20")
    assert not market.price.confirmed, "that is another jump"


def test_looking_again_at_once_confirms_nothing() -> None:
    market = Market(TWO, every=1)
    market.say(a="100", b="100")
    seen = [market.say(a="60", b="60").price for _ in range(7)]
    assert [each.confirmed for each in seen if each] == [False] * 5 + [True, True]


def test_another_feed_with_another_price_waits_for_an_operator() -> None:
    """Unit and contract are part of what names a feed: what a new configuration says is not confirmed by repeating."""
    market = Market(Policy(quorum=1))
    market.refresh(reading("a", "2200", feed="chainlink:cbETH:USD"))
    for _ in range(10):
        market.refresh(reading("a", "1.12", market.now, feed="chainlink:cbETH:ETH-read-as-USD"))
    assert not market.price.confirmed
    assert (market.price.low, market.price.high) == (dollars("1.12"), dollars("2200"))
    assert market.price.reason is not None
    assert "an operator has to accept it" in market.price.reason
    assert market.standing is not None
    market.standing = replace(market.standing, carried=replace(market.standing.carried, anchor=None))
    market.refresh(reading("a", "1.12", market.now, feed="chainlink:cbETH:ETH-read-as-USD"))
    assert market.price.confirmed


def test_another_feed_with_the_same_price_is_nothing_special() -> None:
    market = Market(Policy(quorum=1))
    market.refresh(reading("a", "100", feed="old"))
    market.refresh(reading("a", "101", market.now, feed="new"))
    assert market.price.confirmed


def test_a_price_in_another_unit_is_converted_with_its_uncertainty() -> None:
    units = Market(TWO, asset="USDT").say(a="0.99", b="1.00").price
    assert units is not None
    wide = Market(Policy(quorum=1, max_confidence_bps=200))
    found = wide.refresh(reading("x", "100", unit="USDT"), units={"USDT": units}).price
    assert found is not None
    assert (found.low, found.mid, found.high) == (dollars("99"), dollars("99.5"), dollars("100"))
    stale = replace(units, quality=Quality.STALE)
    assert wide.refresh(reading("x", "100", unit="USDT"), units={"USDT": stale}).price is not None
    assert wide.price.quality is Quality.STALE


def test_age_and_freshness_are_what_the_quorum_has() -> None:
    market = Market(Policy(quorum=2, max_age_seconds=3_600))
    found = market.refresh(
        reading("a", "100", NOW - 250 * SECOND),
        reading("b", "100", NOW - 40 * SECOND),
        reading("c", "100", NOW - 2 * SECOND, max_age_seconds=900),
    )
    assert found.price is not None
    assert found.price.as_of == NOW - 40 * SECOND
    assert found.fresh_until == NOW + 260 * SECOND, "then only one of the three still holds"
    soon = Market(Policy(quorum=2, max_age_seconds=60)).say(a="1", b="1")
    assert soon.fresh_until == NOW + timedelta(seconds=60)


def test_text_and_number_are_exact() -> None:
    for said in ("2345.67", "0.000000000000000001", "100000", "1", "12345678901234567.123456789012345678"):
        price = price_of(Decimal(said))
        assert price is not None
        assert price_text(price) == said
    assert price_of(Decimal("0.12345678901234567891")) == 123456789012345679
    assert [price_of(Decimal(each)) for each in ("0", "-1", "NaN", "Infinity", "1e-30", "1e60")] == [None] * 6
