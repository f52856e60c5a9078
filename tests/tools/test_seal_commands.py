"""`seal-key` and `ledger verify` as they are typed, and a worker that has nothing to sign with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kit.build import ROOT
from kit.signing import SigningKey, load_public
from tests.databases import migrated_database
from tests.seals import Vault, open_vault
from tools.local.postgres import EmbeddedPostgres

SETTINGS = ("DATABASE_URL", "SEAL_KEY_FILE", "CHECKPOINT_DIR", "HOLDFAST_HOME", "TEMPORAL_ADDRESS")


def run(*command: str, status: int, **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**plain, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def sealing_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture
async def vault(sealing_url: str, tmp_path: Path) -> AsyncIterator[Vault]:
    async with open_vault(sealing_url, tmp_path) as vault:
        await vault.deposit(1, 2, 3)
        await vault.seal()
        await vault.sign()
        yield vault


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "seal.pem"
    assert "a new key was written to" in run("-m", "tools", "seal-key", "--file", str(file), status=0)
    made = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_public(tmp_path / "keys" / "seal.pem.pub") == SigningKey.load(file).public
    (tmp_path / "keys" / "seal.pem.pub").unlink()
    assert "the key is in" in run("-m", "tools", "seal-key", "--file", str(file), status=0)
    assert file.read_text() == made
    assert (tmp_path / "keys" / "seal.pem.pub").exists()
    file.write_text("something else")
    assert str(file) in run("-m", "tools", "seal-key", "--file", str(file), status=1)
    assert file.read_text() == "something else", "a file that is no key is not overwritten"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "SEAL_KEY_FILE is not set"),
        ({}, "CHECKPOINT_DIR is not set"),
        ({"SEAL_KEY_FILE": "/nowhere/key.pem", "CHECKPOINT_DIR": "/tmp"}, "SEAL_OLD_PUBLIC_KEYS: /nowhere/key.pem"),
        ({"SEAL_KEY_FILE": "KEY", "CHECKPOINT_DIR": "/proc/1/none"}, "CHECKPOINT_DIR "),
        ({"SEAL_KEY_FILE": "KEY", "CHECKPOINT_DIR": "/tmp", "SEAL_ORIGIN": "two words"}, "SEAL_ORIGIN "),
    ],
)
def test_a_worker_does_not_run_unsigned(tmp_path: Path, given: dict[str, str], said: str) -> None:
    key = tmp_path / "key.pem"
    key.write_text(SigningKey.generate().private_pem())
    environment = {name: value.replace("KEY", str(key)) for name, value in given.items()}
    told = run(
        "worker.py",
        status=2,
        DATABASE_URL="postgresql://x@127.0.0.1:1/x",
        TEMPORAL_ADDRESS="127.0.0.1:1",
        **environment,
    )
    assert said in told


def verify(vault: Vault, *options: str, status: int = 0, url: str | None = None) -> str:
    where = ("--database-url", url or vault.url, "--checkpoints", str(vault.signer.directory))
    return run(
        "-m", "tools", "ledger", "verify", *where, "--public-key", str(vault.public_key), *options, status=status
    )


async def test_the_check_tells_what_it_did(vault: Vault) -> None:
    told = verify(vault)
    assert "the ledger is as it was sealed" in told
    assert "3 in 1 batches" in told
    assert "checkpoints  1 (test/ledger)" in told
    assert "0 entries not sealed, 0 batches not signed" in told


async def test_a_finding_ends_with_1_and_names_the_row(vault: Vault) -> None:
    vault.tamper("UPDATE ledger_transactions SET description = 'x' WHERE sequence = 2")
    assert "NOT as it was sealed: sequence 2, transaction " in verify(vault, status=1)


async def test_what_could_not_be_checked_ends_with_3(vault: Vault, tmp_path: Path) -> None:
    assert "could not be checked" in verify(vault, status=3, url="postgresql://x@127.0.0.1:1/x")
    assert "seal-key.pem.pub" in run("-m", "tools", "ledger", "verify", status=3, HOLDFAST_HOME=str(tmp_path / "none"))
    nothing = run(
        *("-m", "tools", "ledger", "verify", "--public-key", str(vault.public_key)),
        status=3,
        HOLDFAST_HOME=str(tmp_path / "none"),
    )
    assert "there is no database in" in nothing
