"""Packages from npm, as ``package-lock.json`` pins them. ``.ci/run`` installs them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from tools.local.anvil import anvil_program

FOLDER = Path(__file__).parent


def node(package: str) -> str:
    """The program of Node, for a script in this folder that needs ``package``. Without either a test is skipped, and in
    CI it fails."""
    program = shutil.which("node")
    if program is None:
        _without("node is not installed (Debian: apt-get install nodejs npm)")
    if not (FOLDER / "node_modules" / package).is_dir():
        _without(f"{package} is not installed (npm ci --prefix tests/npm)")
    return program


def anvil() -> Path:
    """The program of a chain of one's own. Skips and fails as ``node`` does."""
    return anvil_program() or _without("@foundry-rs/anvil is not installed (npm ci --prefix tests/npm)")


def _without(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: .ci/run installs it")
    pytest.skip(what)
