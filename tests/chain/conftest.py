"""What tests of chains share."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.chain.desk import ChainDesk


@pytest.fixture
def chain_desk(tenants_engine: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> ChainDesk:
    """A contract that the tenant's relayer follows, and the settling of its events."""
    return ChainDesk(tenants_engine, engine, tenant)
