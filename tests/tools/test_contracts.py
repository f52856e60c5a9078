"""Contracts are built from their source: the same bytes everywhere, once, and never anything else."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from kit.build import ROOT
from tools.__main__ import main
from tools.contracts import INTERFACE, SOURCE, Artefact, build
from tools.local.process import StackError

SMALL = "@external\ndef f() -> uint256:\n    return 1\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def artefact(home: Path) -> Artefact:
    """Built from a copy of the source, far from where that lies."""
    elsewhere = home / "far" / "away"
    elsewhere.mkdir(parents=True)
    return build(Path(shutil.copy(SOURCE, elsewhere)), home / "contracts")


def test_the_same_source_makes_the_same_bytes_wherever_it_lies(artefact: Artefact) -> None:
    assert artefact.interface() == json.loads((ROOT / INTERFACE).read_text())


def test_it_says_what_it_was_made_from(artefact: Artefact) -> None:
    assert artefact.source_sha256 == hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    pragma = next(line for line in SOURCE.read_text().splitlines() if line.startswith("# pragma version"))
    assert artefact.compiler == f"vyper {pragma.split()[-1]}"
    # A chain takes no more than 24,576 bytes (EIP-170).
    assert (len(artefact.runtime) - 2) // 2 <= 24_576


def test_what_was_built_is_not_built_again_and_what_changed_is(tmp_path: Path) -> None:
    source, kept = tmp_path / "small.vy", tmp_path / "kept"
    source.write_text(SMALL)
    made = build(source, kept)
    (file,) = kept.glob("small-*.json")
    written = file.stat().st_mtime_ns
    assert build(source, kept) == made
    assert file.stat().st_mtime_ns == written
    source.write_text(SMALL.replace("1", "2"))
    assert build(source, kept).runtime != made.runtime
    assert len(list(kept.glob("small-*.json"))) == 2


def test_a_source_that_does_not_compile_says_why(tmp_path: Path) -> None:
    source = tmp_path / "broken.vy"
    source.write_text("@external\ndef f() -> uint256:\n    return nothing\n")
    with pytest.raises(StackError, match="nothing"):
        build(source, tmp_path)
    assert list(tmp_path.glob("*.json")) == []


def test_the_command_writes_what_is_deployed(
    artefact: Artefact, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_HOME", str(home))
    out = home / "out.json"
    assert main(["contract", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == asdict(artefact)
    assert artefact.interface()["runtime_sha256"] in capsys.readouterr().out
