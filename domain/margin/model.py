"""What margin health is computed from: positions, what each asset counts for, and the levels that an account has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple


class Side(StrEnum):
    """Which side of an account a position stands on."""

    COLLATERAL = "collateral"
    BORROW = "borrow"


class Origin(StrEnum):
    """Where a position comes from: what the tenant declared, or what escrows hold."""

    DECLARED = "declared"
    ESCROW = "escrow"


class Status(StrEnum):
    """What callers are told of an account."""

    HEALTHY = "HEALTHY"
    WARNING = "WARNING"
    MARGIN_CALL = "MARGIN_CALL"
    LIQUIDATION = "LIQUIDATION"


class Severity(StrEnum):
    """How urgent an event is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Level(IntEnum):
    """How bad things are; worse is greater. ``IMMINENT`` is still a margin call to callers."""

    HEALTHY = 0
    WARNING = 1
    MARGIN_CALL = 2
    IMMINENT = 3
    LIQUIDATION = 4

    @property
    def status(self) -> Status:
        """The status that callers know."""
        return Status.MARGIN_CALL if self is Level.IMMINENT else Status[self.name]


@dataclass(frozen=True, slots=True)
class Levels:
    """Below which health factor, in basis points, an account is at each level. A user may tighten the first three."""

    warning_bps: int = 15_000
    margin_call_bps: int = 12_000
    imminent_bps: int = 10_500

    def threshold_bps(self, level: Level) -> int:
        """The health factor below which an account is at ``level``."""
        match level:
            case Level.WARNING:
                return self.warning_bps
            case Level.MARGIN_CALL:
                return self.margin_call_bps
            case Level.IMMINENT:
                return self.imminent_bps
            case Level.LIQUIDATION:
                return LIQUIDATION_BPS
            case _:
                raise ValueError("no threshold leads to HEALTHY")


#: The most whole units of an asset that a position has. With it, with prices of at most 1e18 and with as many positions
#: as an account may have, every total and every health factor fits its column, whatever prices do later.
UNITS_MAX: Final = 10**30


def most_minor(scale: int) -> int:
    """The greatest amount of a position in minor units."""
    return int(UNITS_MAX * 10**scale)


#: Liquidatable strictly below a health factor of one.
LIQUIDATION_BPS: Final = 10_000
DEFAULT_LEVELS: Final = Levels()


class Position(NamedTuple):
    """An amount of one asset on one side, in minor units. An account has each side, asset and origin once."""

    side: Side
    asset: str
    amount_minor: int
    origin: Origin = Origin.DECLARED


def in_order(positions: Iterable[Position]) -> list[Position]:
    """Collateral first, then by asset and origin: the order in which an account's positions are told."""
    return sorted(positions, key=lambda each: (each.side is Side.BORROW, each.asset, each.origin))


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one asset counts for, in basis points: up to ``ltv_bps`` of its value may be borrowed against it, up to
    ``liquidation_threshold_bps`` of it supports debt that exists. ``borrow_rate_bps`` is a year's interest on debt."""

    ltv_bps: int
    liquidation_threshold_bps: int
    liquidation_bonus_bps: int
    borrow_rate_bps: int


@dataclass(frozen=True, slots=True)
class AssetTerms:
    """One asset as a computation sees it: its scale, its parameters, and its price (1e-18 USD per whole unit).

    ``mid`` is displayed and decides the level; borrowing counts collateral at ``low`` and debt at ``high``.
    ``confirmed`` says that the price is fresh, had its quorum and persisted: what is automatic needs it.
    """

    symbol: str
    scale: int
    parameters: Parameters
    mid: int
    low: int
    high: int
    confirmed: bool
    quality: str
    as_of: datetime


#: The assets of a computation by symbol.
Market = Mapping[str, AssetTerms]
