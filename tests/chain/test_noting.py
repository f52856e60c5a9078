"""Who follows writes down how the providers do, and tells who was caught, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.chain.ports import ProviderHealth
from activities.chain.relayer import FollowingActivities
from activities.chain.relayer_messages import RelayerRun
from db.chain import reports
from db.doorbell import Doorbell
from db.engine import transaction
from tests.chain.model import ModelChain, ModelDesk
from tests.chain.watching import register, told


@dataclass(eq=False)
class Caught(ModelDesk):
    """Of its two providers one is well, and the other was caught."""

    def health(self) -> Sequence[ProviderHealth]:
        since = datetime(2026, 1, 1, tzinfo=UTC)
        return [
            ProviderHealth("one", "ok", since, None, 7, 12, 5, 0, 500),
            ProviderHealth("two", "accused", since, "event 3 is missing", 7, 12, 4, 1, None),
        ]


async def test_how_providers_do_is_written_by_who_follows(
    engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    source = await register(tenants_engine, tenant, f"noted-{tenant}")
    desk = Caught(ModelChain(), name=source.chain)
    following = FollowingActivities(engine, Doorbell(engine), {source.chain: desk}, turn_seconds=0.2)
    run = RelayerRun(tenant_id=tenant, relayer_id=source.relayer_id)
    for _ in range(2):
        await ActivityEnvironment().run(following.follow, run)
    async with transaction(engine) as connection:
        one, two = await reports.providers(connection, source.chain)
    assert (one.provider, one.status, one.head_number, one.requests, one.range_blocks) == ("one", "ok", 7, 5, 500)
    assert (two.status, two.reason, two.failures) == ("accused", "event 3 is missing", 1)
    accusations = [data for type_, data in await told(engine, source) if type_ == "chain.provider_accused"]
    assert accusations == [
        {
            "chain": source.chain,
            "provider": "two",
            "reason": "event 3 is missing",
            "relayer_id": source.relayer_id,
        }
    ]
