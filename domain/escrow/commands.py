"""What may be asked of an escrow. Who asks and when travel beside the command, see ``decide``.

``positions`` name milestones; None means every milestone to which the command can apply.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fund:
    """Place the price, and the buyer's fee, of milestones on hold.

    ``amount_minor`` is what the prices, without the fee, must come to; without it they come to what they come to.
    """

    positions: tuple[int, ...] | None = None
    amount_minor: int | None = None


@dataclass(frozen=True, slots=True)
class Approve:
    """Say that milestones were delivered as agreed. May come before the money."""

    positions: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Pay the seller. ``amount_minor`` releases part of one milestone; without it, all that is left.

    ``spread``: an amount that is exactly all that is left of several milestones releases them all.
    """

    positions: tuple[int, ...] | None = None
    amount_minor: int | None = None
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Refund:
    """Pay the buyer back. ``amount_minor`` and ``spread`` as in ``Release``."""

    positions: tuple[int, ...] | None = None
    amount_minor: int | None = None
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Dispute:
    """Stop milestones until they are resolved."""

    reason: str
    positions: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Resolve:
    """Split what is left of one disputed milestone; both parts together are exactly what is left."""

    to_seller_minor: int
    to_buyer_minor: int
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End an escrow that holds no money."""


@dataclass(frozen=True, slots=True)
class PassDeadline:
    """The clock reached a deadline: funding, an inspection period, or expiry. Only ``Role.SYSTEM`` may send it."""


Command = Fund | Approve | Release | Refund | Dispute | Resolve | Cancel | PassDeadline
