"""Past crashes as shocks: by how much prices moved, when, and who says so.

Prices are as the source has them, rounded to cents. Bitcoin and ether are of Yahoo Finance, whose days are UTC. The
lows of a day need not have fallen into the same minute. A stablecoin that no source names is taken as unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from domain.fixed import parse_fixed
from domain.money import format_minor

#: Prices of a move are integers in cents.
MOVE_SCALE: Final = 2


class Measure(StrEnum):
    """Between which prices a scenario's moves are."""

    #: From the close of the first day to the close of the last.
    CLOSE_TO_CLOSE = "close_to_close"
    #: From the close of the first day, for a stablecoin from its dollar, to the lowest price of the last.
    CLOSE_TO_LOW = "close_to_low"


@dataclass(frozen=True, slots=True)
class Move:
    """A price before and after, in US cents."""

    before: int
    after: int

    @property
    def change_percent(self) -> str:
        """By how much, in percent with two places, the nearest one."""
        change = 10_000 * (self.after - self.before)
        nearest = (2 * change + self.before) // (2 * self.before)
        return format_minor(nearest, 2)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the figures are from: publication and title, and the day of an article."""

    publication: str
    title: str
    published: date | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One crash. ``moves`` has every asset that is told of; ``others`` is what any other is taken to have done."""

    name: str
    title: str
    first_day: date
    last_day: date
    measure: Measure
    moves: Mapping[str, Move]
    others: Move
    sources: tuple[Source, ...]

    def move(self, asset: str) -> Move:
        """How an asset moved, or is taken to have moved."""
        return self.moves.get(asset, self.others)

    def is_assumed(self, asset: str) -> bool:
        """Whether no source tells of the asset: it stands still, or does as ``others`` do."""
        move = self.move(asset)
        return asset not in self.moves or move.before == move.after


def _move(before: str, after: str) -> Move:
    code = "scenario_invalid"
    return Move(parse_fixed(before, MOVE_SCALE, code=code), parse_fixed(after, MOVE_SCALE, code=code))


UNCHANGED: Final = _move("1", "1")
_STABLE: Final = {"USDC": UNCHANGED, "USDT": UNCHANGED, "DAI": UNCHANGED}
_BTC: Final = Source("Yahoo Finance", "Bitcoin USD (BTC-USD), historical data")
_ETH: Final = Source("Yahoo Finance", "Ethereum USD (ETH-USD), historical data")


def _crash(
    name: str,
    title: str,
    days: tuple[date, date],
    measure: Measure,
    *,
    btc: Move,
    eth: Move,
    stable: Mapping[str, Move] = _STABLE,
    also: tuple[Source, ...] = (),
) -> Scenario:
    """A fall of the whole market; an asset that nobody tells of falls as ether did."""
    moves = {"BTC": btc, "ETH": eth, **stable}
    return Scenario(name, title, *days, measure, moves, eth, (_BTC, _ETH, *also))


#: By date.
SCENARIOS: Final[tuple[Scenario, ...]] = (
    _crash(
        "black_thursday_2020",
        "Black Thursday: the pandemic reaches the markets",
        (date(2020, 3, 11), date(2020, 3, 12)),
        Measure.CLOSE_TO_CLOSE,
        btc=_move("7911.43", "4970.79"),
        eth=_move("194.87", "112.35"),
    ),
    _crash(
        "may_2021",
        "19 May 2021: China repeats its bans, leverage is liquidated",
        (date(2021, 5, 18), date(2021, 5, 19)),
        Measure.CLOSE_TO_LOW,
        btc=_move("42909.40", "30681.50"),
        eth=_move("3380.07", "1952.46"),
        also=(Source("The Straits Times", "Making sense of the Bitcoin crash", date(2021, 5, 26)),),
    ),
    _crash(
        "terra_2022",
        "Terra's stablecoin collapses",
        (date(2022, 5, 7), date(2022, 5, 12)),
        Measure.CLOSE_TO_CLOSE,
        btc=_move("35501.95", "29047.75"),
        eth=_move("2636.09", "1961.70"),
    ),
    _crash(
        "tether_2022",
        "Tether slips from its dollar while Terra collapses",
        (date(2022, 5, 11), date(2022, 5, 12)),
        Measure.CLOSE_TO_LOW,
        btc=_move("28936.36", "26350.49"),
        eth=_move("2072.11", "1748.30"),
        stable=_STABLE | {"USDT": _move("1.00", "0.96")},
        also=(Source("CoinDesk", "Tether Loses $1 Peg, Bitcoin Drops to 2020 Levels of Near $24K", date(2022, 5, 12)),),
    ),
    _crash(
        "celsius_2022",
        "Celsius halts withdrawals",
        (date(2022, 6, 12), date(2022, 6, 13)),
        Measure.CLOSE_TO_CLOSE,
        btc=_move("26762.65", "22487.39"),
        eth=_move("1445.22", "1204.58"),
        also=(
            Source(
                "CoinDesk", "Market Wrap: Bitcoin Tumbles Most in 1 Year as Crypto Cracks Appear", date(2022, 6, 13)
            ),
        ),
    ),
    _crash(
        "june_2022",
        "Nine days of June 2022: lenders and funds fail",
        (date(2022, 6, 9), date(2022, 6, 18)),
        Measure.CLOSE_TO_CLOSE,
        btc=_move("30112.00", "19017.64"),
        eth=_move("1789.83", "993.64"),
    ),
    _crash(
        "ftx_2022",
        "FTX fails",
        (date(2022, 11, 7), date(2022, 11, 9)),
        Measure.CLOSE_TO_CLOSE,
        btc=_move("20602.82", "15880.78"),
        eth=_move("1568.59", "1100.17"),
        also=(
            Source(
                "CoinDesk", "Bitcoin Hits 2-Year Low Below $16K After Binance Backs Out of FTX Deal", date(2022, 11, 9)
            ),
        ),
    ),
    Scenario(
        "usdc_2023",
        "USDC and DAI lose their dollar: a bank with USDC's reserves fails",
        date(2023, 3, 10),
        date(2023, 3, 11),
        Measure.CLOSE_TO_LOW,
        {
            "BTC": UNCHANGED,
            "ETH": UNCHANGED,
            **_STABLE,
            "USDC": _move("1.00", "0.88"),
            "DAI": _move("1.00", "0.88"),
        },
        UNCHANGED,
        (
            Source(
                "The Block",
                "USDC remains at about $0.90 following Circle's disclosure of funds at SVB",
                date(2023, 3, 11),
            ),
            Source("CoinDesk", "DAI Depegs to Lifetime Lows as Stablecoin Rout Plagues Crypto", date(2023, 3, 11)),
        ),
    ),
    _crash(
        "carry_trade_2024",
        "5 August 2024: yen carry trades unwind",
        (date(2024, 8, 4), date(2024, 8, 5)),
        Measure.CLOSE_TO_LOW,
        btc=_move("58116.98", "49121.24"),
        eth=_move("2686.40", "2122.55"),
        also=(
            Source(
                "CoinDesk",
                "Bitcoin Tumbles to $53K, Ether Turns Negative for 2024 as Panic Grips Markets",
                date(2024, 8, 5),
            ),
        ),
    ),
    _crash(
        "tariffs_2025",
        "10 October 2025: tariffs are announced, leverage is liquidated",
        (date(2025, 10, 9), date(2025, 10, 10)),
        Measure.CLOSE_TO_LOW,
        btc=_move("121705.59", "104582.41"),
        eth=_move("4369.14", "3460.22"),
    ),
)
