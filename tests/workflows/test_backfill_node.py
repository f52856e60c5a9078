"""A backfill from a real node through a proxy that goes wrong by a seed: what is stored is the chain's own truth."""

from __future__ import annotations

from pathlib import Path

from domain.chain import Source
from tests.anvil import running
from tests.backfilling import Bench
from tests.bench.flooding import OPTIONS, Flood, deployed
from tests.chain.faults import FaultProxy
from tests.chain.memory import CHAIN, followed
from tests.chain.proving import desk_over

EVENTS = 3_000


async def test_every_event_of_a_real_chain_is_there_once_whatever_goes_wrong(bench: Bench, tmp_path: Path) -> None:
    with running(tmp_path, *OPTIONS) as chain:
        flood = deployed(chain, tmp_path)
        last = flood.mine(EVENTS)
        with FaultProxy(chain.url, seed=20261126, rate=0.08, hang_seconds=1.0) as proxy:
            desk = desk_over(proxy.url, chain.url)
            bench.chains[CHAIN] = desk
            address = bytes.fromhex(flood.address.removeprefix("0x"))
            source = await followed(bench.tenants, bench.tenant, addresses=(address,), start_block=flood.start_block)
            job = await bench.completed(await bench.start(source, flood.start_block, last, chunk_blocks=3))
            await desk.close()
        assert await bench.stored(source) == list(range(1, EVENTS + 1))
        assert await _rows(bench, source) == _truth(flood, last)
        assert job.verification is not None
        assert job.verification["counter"]["value"] == EVENTS


async def _rows(bench: Bench, source: Source) -> set[tuple[int, str, str, int]]:
    rows = await bench.sql(
        "SELECT block_number, encode(block_hash, 'hex') AS block, encode(tx_hash, 'hex') AS tx, log_index"
        " FROM chain_events WHERE source_id = :id AND canonical",
        id=source.source_id,
    )
    return {(row.block_number, row.block, row.tx, row.log_index) for row in rows}


def _truth(flood: Flood, last: int) -> set[tuple[int, str, str, int]]:
    """As the node says it without anybody between."""
    logs = flood.chain.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(last), "address": flood.address})
    return {
        (int(log["blockNumber"], 16), log["blockHash"][2:], log["transactionHash"][2:], int(log["logIndex"], 16))
        for log in logs
    }
