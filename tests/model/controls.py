"""The reference model's controls: what an operator stopped or bounded, and whether a movement gets past it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.model.reference import LARGEST, OUTSIDE, No

Purse = tuple[str, str]

#: What begins something; what ends something that is under way is bounded by nothing.
BEGINS = ("deposit", "withdrawal", "transfer", "transfer_hold", "escrow_fund")


@dataclass(frozen=True)
class Bounds:
    """What an account keeps, has and pays at once in one asset; None is no bound."""

    keeps: int | None = None
    has: int | None = None
    pays: int | None = None


@dataclass(frozen=True)
class Balances:
    """What everybody has available and on hold, by account and asset."""

    available: Mapping[Purse, int]
    held: Mapping[Purse, int]

    def of(self, purse: Purse) -> tuple[int, int]:
        return self.available.get(purse, 0), self.held.get(purse, 0)


@dataclass
class Controls:
    """What stands: freezes as (scope, ref), bounds by account and asset."""

    frozen: set[tuple[str, str]] = field(default_factory=set)
    bounds: dict[Purse, Bounds] = field(default_factory=dict)

    def check(self, kind: str, before: Balances, after: Balances, touched: Iterable[Purse] = ()) -> None:
        """Refuse a movement of this kind; ``touched`` it is known to touch, whether a balance changes by it or not.

        Where there are several reasons, any may be told: their codes are joined by bars.
        """
        purses = before.available.keys() | before.held.keys() | after.available.keys() | after.held.keys()
        moved = {purse for purse in purses if before.of(purse) != after.of(purse)}
        self._check_frozen(moved.union(touched))
        refuse([code for purse in moved for code in self._objections(kind, purse, before, after)])

    def check_tenant(self) -> None:
        """While the tenant is frozen nothing happens in it, whether money moves or not."""
        refuse(["tenant_frozen"] if ("tenant", "") in self.frozen else [])

    def _check_frozen(self, touched: set[Purse]) -> None:
        self.check_tenant()
        accounts = any(("account", account) in self.frozen for account, _ in touched)
        assets = any(("asset", asset) in self.frozen for _, asset in touched)
        refuse([*(["account_frozen"] if accounts else []), *(["asset_frozen"] if assets else [])])

    def _objections(self, kind: str, purse: Purse, before: Balances, after: Balances) -> list[str]:
        (had, had_on_hold), (free, on_hold) = before.of(purse), after.of(purse)
        if purse[0] == OUTSIDE:
            return ["balance_too_large"] if free < -LARGEST else []
        if free < 0:
            return ["insufficient_funds"]
        bounds = self.bounds.get(purse, Bounds()) if kind in BEGINS else Bounds()
        found = []
        if bounds.pays is not None and had - free > bounds.pays:
            found.append("limit_max_debit")
        if bounds.keeps is not None and free < bounds.keeps and free < had:
            found.append("limit_min_available")
        if bounds.has is not None and free + on_hold > max(bounds.has, had + had_on_hold):
            found.append("limit_max_balance")
        return found


def refuse(codes: list[str]) -> None:
    if codes:
        raise No("|".join(sorted(set(codes))))
