"""One chain for each file of tests; each test begins where the file began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.anvil import Chain, running
from tests.contracts.desk import Desk


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with running(tmp_path_factory.mktemp("anvil")) as chain:
        yield chain


@pytest.fixture(scope="module")
def deployed(chain: Chain) -> Desk:
    return Desk(chain)


@pytest.fixture
def desk(deployed: Desk) -> Iterator[Desk]:
    with deployed.chain.undone():
        yield deployed
