"""What a worker knows of prices: whom to ask, and what each asset's price needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from activities.ports import PriceSource
from domain.prices.model import Policy


@dataclass(frozen=True, slots=True)
class PriceDesk:
    """Sources by name, and each asset's policy; assets without one have ``default``."""

    sources: Mapping[str, PriceSource] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    default: Policy = field(default_factory=Policy)

    def policy(self, asset: str) -> Policy:
        """What the asset's price needs."""
        return self.policies.get(asset, self.default)

    def expected(self) -> Mapping[str, Sequence[str]]:
        """The sources that are asked for each asset."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.sources):
            for asset in self.sources[name].assets:
                found.setdefault(asset, []).append(name)
        return found

    async def close(self) -> None:
        """Let every source go."""
        for source in self.sources.values():
            await source.close()
