"""A tenant's steps."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from tests.activities.steps import Steps


@pytest.fixture
def steps(tenants_engine: AsyncEngine, tenant: UUID) -> Steps:
    """Called as a worker calls them, on the real database."""
    return Steps(tenants_engine, tenant, ActivityEnvironment())
