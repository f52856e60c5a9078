"""What tests of readers share: a source for a contract, and a reader that is closed behind them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from domain.chain import ChainKind, Source

TENANT = UUID("0190b5a0-0000-7000-8000-000000000001")


def contract_source(address: str, *, chain_id: int = 31337, start_block: int = 0) -> Source:
    """A followed escrow contract."""
    return Source(
        source_id=1,
        tenant_id=TENANT,
        relayer_id=f"local:{address.lower()}",
        chain="local",
        kind=ChainKind.EVM,
        network=f"eip155:{chain_id}",
        addresses=(bytes.fromhex(address.removeprefix("0x")),),
        start_block=start_block,
        sequenced=True,
        settles=True,
    )


def script_source(scripts: Sequence[bytes], network: str) -> Source:
    """Followed output scripts."""
    return Source(
        source_id=2,
        tenant_id=TENANT,
        relayer_id="coins:scripts",
        chain="coins",
        kind=ChainKind.UTXO,
        network=network,
        addresses=tuple(scripts),
        start_block=0,
        sequenced=False,
        settles=False,
    )
