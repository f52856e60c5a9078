"""A vendor a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.vendors.server import Vendor, vendor


@pytest.fixture
async def served() -> AsyncIterator[Vendor]:
    async with vendor() as made:
        yield made
