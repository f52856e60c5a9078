"""The file that says which chains there are becomes a desk for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.ports import Lane
from activities.vendors.chains import chain_desks
from kit.chains import ChainsConfig
from kit.settings import EXIT_CONFIGURATION, WorkerSettings
from outside import create_chains
from tests.anvil import running
from tests.chain.reading import contract_source
from tests.contracts import desk as parties

GENESIS = 64 * "0"
SETTINGS: Any = {
    "database_url": "postgresql://nowhere",
    "temporal_address": "nowhere:1",
    "seal_key_file": "/nowhere/key",
    "checkpoint_dir": "/nowhere",
}
CHAINS = f"""
[chains.local]
kind = "evm"
chain_id = 31337
confirmations = 3
poll_seconds = 0.1
[[chains.local.providers]]
name = "node"
url = "URL"
requests_per_second = 500

[chains.coins]
kind = "utxo"
genesis_hash = "{GENESIS}"
asset = "LTC"
[[chains.coins.providers]]
name = "core"
url = "http://user:password@127.0.0.1:1"
"""


async def test_a_file_becomes_desks_that_read_a_node(engine: AsyncEngine, tmp_path: Path) -> None:
    file = tmp_path / "chains.toml"
    with running(tmp_path) as chain:
        party = parties.Desk(chain)
        party.funded(party.terms())
        file.write_text(CHAINS.replace("URL", chain.url))
        desks = create_chains(WorkerSettings(**SETTINGS, chains_file=file), engine)
        assert set(desks) == {"local", "coins"}
        local = desks["local"]
        assert (local.name, local.confirmations, local.finality_depth, local.poll_seconds) == ("local", 3, None, 0.1)
        assert desks["coins"].finality_depth == 6
        head = await local.head(Lane.LIVE)
        source = contract_source(party.contract.address)
        found = await local.fetch(source, 0, head.latest.number, Lane.JOB, after=None, after_sequence=None)
        assert [event.kind for event in found.events] == ["Created", "Funded"]
        assert (found.counter, found.providers) == (2, ("node",))
        for desk in desks.values():
            await desk.close()


def test_without_a_file_there_are_none(engine: AsyncEngine) -> None:
    assert create_chains(WorkerSettings(**SETTINGS), engine) == {}


def test_a_file_at_fault_ends_the_process(
    engine: AsyncEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chains.toml"
    file.write_text(CHAINS.replace('url = "URL"', 'url_env = "NODE_URL"'))
    with pytest.raises(SystemExit) as raised:
        create_chains(WorkerSettings(**SETTINGS, chains_file=file), engine)
    assert raised.value.code == EXIT_CONFIGURATION
    assert "CHAINS_FILE NODE_URL, which provider node names," in capsys.readouterr().err


def test_three_providers_must_agree_by_two(engine: AsyncEngine) -> None:
    providers = [{"name": name, "url": f"http://{name}"} for name in "abc"]
    config = ChainsConfig.model_validate({"chains": {"eth": {"kind": "evm", "chain_id": 1, "providers": providers}}})
    desk = chain_desks(config, engine)["eth"]
    assert [health.provider for health in desk.health()] == ["a", "b", "c"]
    assert desk._agreeing == 2
