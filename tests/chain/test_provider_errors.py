"""What vendors publish as their errors is understood, and nothing of an address or a key is repeated."""

from __future__ import annotations

import pytest

from activities.chain.ports import FaultKind
from activities.vendors.rpcfaults import Told, judged
from tests.chain.provider_errors import PUBLISHED, Published


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda each: f"{each.kind}-{each.vendor}".replace(" ", "_"))
def test_a_published_error_is_understood(published: Published) -> None:
    fault = judged(published.told)
    found = (fault.kind, fault.limit_blocks, fault.retry_after_seconds)
    assert found == (published.kind, published.limit_blocks, published.retry_after_seconds), published.told
    assert fault.message


def test_the_table_is_large_and_of_every_kind() -> None:
    assert len(PUBLISHED) >= 40
    assert {published.kind for published in PUBLISHED} == set(FaultKind) - {FaultKind.NONSENSE, FaultKind.WRONG_CHAIN}


def test_only_a_call_that_can_be_made_smaller_is_asked_to_be() -> None:
    for published in PUBLISHED:
        if published.kind in (FaultKind.TOO_WIDE, FaultKind.TOO_MUCH) and published.told.text:
            told = published.told
            assert judged(Told(200, told.code, told.text, "eth_chainId")).limit_blocks is None
            assert judged(Told(200, told.code, told.text, "eth_chainId")).kind not in (
                FaultKind.TOO_WIDE,
                FaultKind.TOO_MUCH,
            )


def test_a_message_repeats_neither_address_nor_key() -> None:
    key = "k3yk3yk3yk3yk3yk3yk3yk3yk3yk3y"
    fault = judged(Told(401, -32000, f"no access to https://node.example/v2/{key}?x=1 with {key}", "eth_getLogs"))
    assert key not in fault.message
    assert "node.example" not in fault.message
    assert fault.message.startswith("HTTP 401, code -32000: no access to")
    assert len(judged(Told(500, None, "x " * 10_000)).message) < 300
