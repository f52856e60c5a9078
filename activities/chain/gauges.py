"""How far relayers are and how providers do, as metrics of the process: read from the database once in a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine

from db.chain import reports
from db.chain.reports import Provider, Standing
from db.engine import transaction
from domain.chain import RelayerStatus
from domain.errors import Unavailable
from kit.clock import now

SECONDS: Final = 10.0

_log = logging.getLogger(__name__)

#: Of each relayer that has a live end; None is not told.
_RELAYER: Final[Sequence[tuple[str, str, Callable[[Standing], float | None]]]] = (
    ("head_block", "The chain's last block, when it was last asked", lambda one: one.course.head_number),
    ("block", "The last block that is here", lambda one: one.course.block_number),
    ("finalized_block", "The last block on which money moves", lambda one: one.finalized_number),
    ("lag_blocks", "Blocks of the chain that are not here", lambda one: one.course.lag_blocks),
    ("lag_seconds", "By how much the last block here is older than the chain's", lambda one: one.course.lag_seconds),
    ("silent_seconds", "Since when nothing was heard of the chain", lambda one: one.course.silent_seconds(now())),
    ("gap_blocks", "Blocks that are missing and that no backfill is at", lambda one: one.course.gap_blocks),
    ("halted", "1 while the relayer waits for an operator", lambda one: one.course.status is RelayerStatus.HALTED),
    ("paused", "1 while the relayer is paused", lambda one: one.course.status is RelayerStatus.PAUSED),
    ("last_sequence", "The number of the last event", lambda one: one.last_sequence),
    ("settled_sequence", "The number of the last event that is settled", lambda one: one.settled_sequence),
)
_PROVIDER: Final[Sequence[tuple[str, str, Callable[[Provider], float | None]]]] = (
    ("head_block", "The last block that the provider has", lambda one: one.head_number),
    ("up", "1 while the provider is asked like any other", lambda one: one.status == "ok"),
    ("accused", "1 while the provider is left alone for an untrue answer", lambda one: one.status == "accused"),
    ("requests", "Requests made", lambda one: one.requests),
    ("failures", "Requests that brought nothing usable", lambda one: one.failures),
)


class ChainGauges(Collector):
    """Reads, and tells what it read last. ``engine`` sees every tenant."""

    def __init__(self, engine: AsyncEngine, *, registry: CollectorRegistry = REGISTRY) -> None:
        self._engine = engine
        self._relayers: Sequence[Standing] = ()
        self._providers: Sequence[Provider] = ()
        registry.register(self)

    async def run(self) -> None:
        """Read until cancelled. While the database is away, what was read last stands."""
        while True:
            try:
                await self.read()
            except Unavailable as error:
                _log.warning("gauges of chains wait for the database: %s", error)
            except Exception:  # noqa: BLE001 - logged with its traceback; who watches the process is not to lose it
                _log.exception("gauges of chains could not be read")
            await asyncio.sleep(SECONDS)

    async def read(self) -> None:
        """Read where every relayer and provider stands."""
        async with transaction(self._engine) as connection:
            relayers, providers = await reports.list_(connection), await reports.providers(connection)
        self._relayers = [each for each in relayers if each.course.status is not RelayerStatus.OBSERVING]
        self._providers = providers

    def collect(self) -> Iterable[Metric]:
        """What the metrics' reader gets."""
        for name, text, of_relayer in _RELAYER:
            family = GaugeMetricFamily(f"holdfast_chain_{name}", text, labels=("chain", "relayer"))
            for standing in self._relayers:
                if (value := of_relayer(standing)) is not None:
                    source = standing.followed.source
                    family.add_metric((source.chain, source.relayer_id), value)
            yield family
        for name, text, of_provider in _PROVIDER:
            family = GaugeMetricFamily(f"holdfast_chain_provider_{name}", text, labels=("chain", "provider"))
            for provider in self._providers:
                if (value := of_provider(provider)) is not None:
                    family.add_metric((provider.chain, provider.provider), value)
            yield family
