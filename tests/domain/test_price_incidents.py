"""Seven incidents, replayed through the real aggregation: no wrongful liquidation, no borrowing on a bad price.

Dates and figures are those of the public post-mortems; the other venues' prices are what the market said then. Who
follows the one source that was wrong would have liquidated or lent; each test shows that, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from domain.fixed import PRICE_ONE, RATIO_ONE
from domain.margin.health import health_factor, settled_level, value
from domain.margin.model import DEFAULT_LEVELS, AssetTerms, Level, Parameters, Position, Side
from domain.money import BASIS_POINTS
from domain.prices.model import Policy, Price, Quality, Reading
from tests.domain.prices import NOW, Market, dollars, reading

THREE = Policy(quorum=2, band_bps=100)
PARAMETERS = Parameters(ltv_bps=7_500, liquidation_threshold_bps=8_000, liquidation_bonus_bps=500, borrow_rate_bps=0)


def terms(asset: str, price: Price) -> AssetTerms:
    return AssetTerms(
        symbol=asset,
        scale=0,
        parameters=PARAMETERS,
        mid=price.mid,
        low=price.low,
        high=price.high,
        confirmed=price.confirmed,
        quality=price.quality,
        as_of=price.as_of,
    )


@dataclass(frozen=True, slots=True)
class Account:
    """One collateral, one debt, in whole units; the other side of the pair is priced at one dollar."""

    collateral: tuple[str, int]
    debt: tuple[str, int]

    def market(self, asset: str, price: Price) -> dict[str, AssetTerms]:
        one = Price(asset, PRICE_ONE, PRICE_ONE, PRICE_ONE, Quality.GOOD, True, NOW, (), 1)
        return {name: terms(name, price if name == asset else one) for name in (self.collateral[0], self.debt[0])}

    def positions(self) -> list[Position]:
        return [Position(Side.COLLATERAL, *self.collateral), Position(Side.BORROW, *self.debt)]

    def level(self, asset: str, price: Price, told: Level = Level.HEALTHY) -> Level:
        found = value(self.positions(), self.market(asset, price))
        return settled_level(told, found.weighted, found.debt, DEFAULT_LEVELS, confirmed=found.confirmed)

    def may_borrow(self, asset: str, price: Price) -> bool:
        """What margin asks before somebody borrows: enough at the worst prices, none of them stale."""
        found = value(self.positions(), self.market(asset, price))
        return price.quality is not Quality.STALE and found.capacity >= found.debt_high * BASIS_POINTS

    def health(self, asset: str, price: Price) -> int | None:
        found = value(self.positions(), self.market(asset, price))
        return health_factor(found.weighted, found.debt)


def naive(asset: str, said: str) -> Price:
    """What one source alone says, believed at once."""
    mid = dollars(said)
    return Price(asset, mid, mid, mid, Quality.GOOD, True, NOW, (), 1)


def test_2020_11_26_dai_at_1_30_on_one_exchange() -> None:
    """Compound read Coinbase alone: debts in DAI grew by 30 %, about 89 M USD were liquidated."""
    account = Account(("USDC", 140), ("DAI", 100))  # health 1.12; at 1.30 it would be 0.86
    assert account.level("DAI", naive("DAI", "1.30")) is Level.LIQUIDATION
    market = Market(THREE, asset="DAI")
    market.say(coinbase="1.00", kraken="1.00", chainlink="1.001")
    for spike in ("1.10", "1.24", "1.30", "1.30", "1.30", "1.05"):
        found = market.say(coinbase=spike, kraken="1.003", chainlink="1.002")
        assert market.price.confirmed
        assert market.price.mid <= dollars("1.003")
        assert account.level("DAI", market.price) is Level.MARGIN_CALL, "as it was before"
        assert found.verdicts[1].left_out is not None, "an operator sees it within one refresh"


def test_2022_05_12_luna_frozen_at_0_107() -> None:
    """Venus and Blizz read a feed that was paused at its least answer while the market went to 0.01: 19 M borrowed
    against nothing."""
    borrower = Account(("LUNA", 1_000), ("USDC", 75))
    assert borrower.may_borrow("LUNA", naive("LUNA", "0.107"))
    policy = Policy(quorum=2, band_bps=100, min_price=dollars("0.0001"))
    market = Market(policy, asset="LUNA", every=60)
    market.say(chainlink="0.107", binance="0.107", kraken="0.107")
    paused_at = market.now
    # Two of three go on with the market; the paused one is an outlier at first, and then too old.
    for said in ("0.08", "0.05", "0.03", "0.02", "0.01", "0.01", "0.01", "0.01"):
        frozen = reading("chainlink", "0.107", paused_at, asset="LUNA")
        found = market.refresh(
            frozen, *(reading(name, said, market.now, asset="LUNA") for name in ("binance", "kraken"))
        )
        assert market.price.low <= dollars(said)
        assert not borrower.may_borrow("LUNA", market.price)
        assert [v.left_out for v in found.verdicts if v.reading.source == "chainlink"] != [None]
    assert market.price.confirmed
    assert market.price.mid == dollars("0.01")


def test_2022_05_12_luna_with_nothing_but_the_frozen_feed_and_one_other() -> None:
    """Two that disagree: the price stands, stale, and what the other says still bounds what may be borrowed."""
    borrower = Account(("LUNA", 1_000), ("USDC", 75))
    market = Market(THREE, asset="LUNA")
    market.say(chainlink="0.107", binance="0.107")
    for said in ("0.05", "0.01"):
        market.say(chainlink="0.107", binance=said)
        assert (market.price.quality, market.price.confirmed) == (Quality.STALE, False)
        assert market.price.low == dollars(said)
        assert not borrower.may_borrow("LUNA", market.price)


@pytest.mark.parametrize("wrong", ["789000000000", "0.0000027", "36000"])
def test_2021_12_14_coinmarketcap_with_nonsense_and_http_200(wrong: str) -> None:
    """Prices of Bitcoin and others were off by orders of magnitude for an hour, with HTTP 200 (also on 14 June)."""
    account = Account(("BTC", 1), ("USDC", 33_000))
    market = Market(THREE, asset="BTC")
    market.say(aggregator="47900", exchange="47850", chainlink="47910")
    before = account.level("BTC", market.price)
    for _ in range(4):
        market.say(aggregator=wrong, exchange="47860", chainlink="47900")
        assert market.price.confirmed
        assert dollars("47860") <= market.price.mid <= dollars("47900")
        assert account.level("BTC", market.price) is before


def test_2025_10_10_usde_at_0_65_on_its_own_book() -> None:
    """Binance valued collateral by its own order book, which was empty for minutes: 283 M USD of compensation."""
    account = Account(("USDe", 150), ("USDC", 100))  # health 1.2; at 0.65 it would be 0.78
    assert account.level("USDe", naive("USDe", "0.65")) is Level.LIQUIDATION
    market = Market(THREE, asset="USDe")
    market.say(binance="0.9995", curve="0.9990", chainlink="0.9993")
    for spike in ("0.93", "0.80", "0.65", "0.65", "0.72", "0.98"):
        market.say(binance=spike, curve="0.9975", chainlink="0.9985")
        assert market.price.confirmed
        assert market.price.mid >= dollars("0.9975")
        assert account.level("USDe", market.price) <= Level.MARGIN_CALL
        assert market.price.low >= dollars("0.9975")


def test_2025_11_04_xusd_fixed_at_about_one() -> None:
    """Oracles that said 1.26 whatever happened let 285 M USD of debt stand on xUSD, which traded at 0.30."""
    borrower = Account(("xUSD", 100), ("USDC", 90))
    fixed = Market(THREE, asset="xUSD")
    fixed.say(fixed="1.26", venue="1.26")
    for said in ("0.9", "0.5", "0.3", "0.3"):
        fixed.say(fixed="1.26", venue=said)
        assert not fixed.price.confirmed
        assert fixed.price.low == dollars(said), "a fixed figure is one voice, and no bound"
        assert not borrower.may_borrow("xUSD", fixed.price)
    market = Market(THREE, asset="xUSD")
    market.say(fixed="1.26", venue="1.26", other="1.26")
    for said in ("0.9", "0.5", "0.3", "0.3", "0.3"):
        market.say(fixed="1.26", venue=said, other=said)
        assert market.price.mid == dollars(said)
        assert not borrower.may_borrow("xUSD", market.price)
    assert market.price.confirmed, "with two venues the fall is known"


def test_2026_02_15_cbeth_at_1_12() -> None:
    """Moonwell's new feed left out ETH/USD: cbETH at 1.12 for 2,200 USD, seized by liquidators within four minutes."""
    account = Account(("cbETH", 10), ("USDC", 12_000))
    assert account.level("cbETH", naive("cbETH", "1.12")) is Level.LIQUIDATION

    def cbeth(price: str, feed: str, market: Market) -> Reading:
        return reading("chainlink", price, market.now, asset="cbETH", feed=feed)

    bounded = Market(Policy(quorum=1, min_price=dollars("100")), asset="cbETH")
    unbounded = Market(Policy(quorum=1), asset="cbETH")
    for market in (bounded, unbounded):
        market.refresh(cbeth("2200", "chainlink:1:0xold:18:USD", market))
        for _ in range(16):  # four minutes
            market.refresh(cbeth("1.12", "chainlink:1:0xnew:18:USD", market))
            assert not market.price.confirmed
            assert account.level("cbETH", market.price) < Level.LIQUIDATION
    assert bounded.price.mid == dollars("2200")
    debtor = Account(("USDC", 100), ("cbETH", 10))
    assert debtor.may_borrow("cbETH", naive("cbETH", "1.12")), "11 dollars of debt, as it seemed"
    for market in (bounded, unbounded):
        assert not debtor.may_borrow("cbETH", market.price), "debt counts at what it was worth before"


def test_2026_03_10_wsteth_2_85_percent_low() -> None:
    """Aave's own cap was set wrongly and held wstETH 2.85 % under its worth: 34 accounts, 26 M USD. A guard is a
    source like others, and needs a second one."""
    account = Account(("wstETH", 1), ("USDC", 1_980))  # health 1.01 at 2,500; at 2,428.75 it would be 0.98
    assert account.level("wstETH", naive("wstETH", "2428.75")) is Level.LIQUIDATION
    market = Market(THREE, asset="wstETH")
    market.say(capped="2500", market="2501", chainlink="2499")
    assert account.health("wstETH", market.price) == RATIO_ONE * 2_000 // 1_980
    for _ in range(10):
        market.say(capped="2428.75", market="2500", chainlink="2500")
        assert market.price.mid == dollars("2500")
        assert account.level("wstETH", market.price) < Level.LIQUIDATION
    pair = Market(THREE, asset="wstETH")
    pair.say(capped="2500", market="2500")
    for _ in range(10):
        pair.say(capped="2428.75", market="2500")
        assert (pair.price.mid, pair.price.quality) == (dollars("2500"), Quality.STALE)
        assert account.level("wstETH", pair.price) < Level.LIQUIDATION
        assert not account.may_borrow("wstETH", pair.price)


def test_a_fall_that_is_real_is_acted_on_within_two_refreshes() -> None:
    """What keeps lies out must not keep the truth out: 12 March 2020, ETH from 194 to 111 within hours."""
    account = Account(("ETH", 10), ("USDC", 1_200))
    market = Market(THREE)
    market.say(a="194", b="194.2", c="193.9")
    began = market.now
    market.say(a="140", b="140.3", c="139.8")
    assert account.level("ETH", market.price) is Level.IMMINENT
    market.say(a="139", b="139.2", c="138.9")
    assert account.level("ETH", market.price) is Level.LIQUIDATION
    assert market.now - began == timedelta(seconds=30)
