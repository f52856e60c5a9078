"""`chains`: an example to begin with, and what is wrong with a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kit.build import ROOT
from kit.chains import COIN, EvmChain, UtxoChain, read_chains
from tools.__main__ import main
from tools.commands.chains import EXAMPLE

BROKEN = """
[chains.dev]
kind = "evm"
chain_id = 0
providers = []
"""


def test_the_example_follows_nothing_and_each_part_of_it_works(tmp_path: Path) -> None:
    assert read_chains(EXAMPLE).chains == {}
    whole = re.sub(r"^# (?=[\[a-z\"])", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    file = tmp_path / "chains.toml"
    # Only what is TOML: sentences begin with a capital.
    file.write_text("\n".join(line for line in whole.splitlines() if "=" in line.partition("#")[0] or "[" in line[:1]))
    chains = read_chains(file).chains
    assert {name: type(chain) for name, chain in chains.items()} == {
        "local": EvmChain,
        "mainnet": EvmChain,
        "bitcoin": UtxoChain,
    }
    assert chains["mainnet"].agreeing == 2


def test_a_file_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "home" / "chains.toml"
    assert main(["chains", "start", "--file", str(file)]) == 0
    assert file.read_text() == EXAMPLE.read_text()
    file.write_text("# mine")
    assert main(["chains", "start", "--file", str(file)]) == 0
    assert file.read_text() == "# mine"
    assert "an example of chains was written" in capsys.readouterr().out


def test_a_stack_of_ones_own_knows_a_chain_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "chains.toml"
    assert main(["chains", "start", "--file", str(file), "--local-port", "15001"]) == 0
    (chain,) = read_chains(file).chains.values()
    assert (chain.network, chain.finality_depth) == ("eip155:31337", None)
    assert [provider.address() for provider in chain.providers] == ["http://127.0.0.1:15001"]
    assert isinstance(chain, EvmChain)
    assert chain.tokens[COIN].asset == "ETH"


def test_a_fault_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "chains.toml"
    file.write_text(BROKEN)
    assert main(["chains", "check", "--file", str(file)]) == 1
    assert "chains.dev.providers" in capsys.readouterr().err
    file.write_text(BROKEN.replace("= 0", "= 5").replace("[]", '[{name = "one", url_env = "NODE_OF_DEV"}]'))
    monkeypatch.delenv("NODE_OF_DEV", raising=False)
    assert main(["chains", "check", "--file", str(file)]) == 1
    assert "NODE_OF_DEV, which provider one names" in capsys.readouterr().err
    monkeypatch.setenv("NODE_OF_DEV", "http://secret@127.0.0.1:1")
    assert main(["chains", "check", "--file", str(file)]) == 0
    said = capsys.readouterr().out
    assert "eip155:5: one; 1 must agree" in said
    assert "secret" not in said


def test_an_api_does_not_start_with_a_file_at_fault(tmp_path: Path) -> None:
    file = tmp_path / "chains.toml"
    file.write_text(BROKEN)
    said = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x",
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "API_PORT": "0",
        "CHAINS_FILE": str(file),
    }
    done = subprocess.run(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env={**os.environ, **said},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"configuration: CHAINS_FILE {file}: chains.dev." in done.stderr
