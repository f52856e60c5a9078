"""A short soak, and what keeps its verdict honest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import ROOT, CommandLine
from tests.soak.fleet import ROLES

#: Not a secret and not random: the run can be repeated. HOLDFAST_SEED takes another.
SEED = "holdfast"
LIMIT_SECONDS = 240


@pytest.mark.timeout(LIMIT_SECONDS + 30)
def test_four_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    seed = os.environ.get("HOLDFAST_SEED") or SEED
    folder = tmp_path / "soak"
    size = ["--kills", "4", "--minutes", "0.2", "--escrows", "16", "--savers", "4", "--commands", "200"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seed", seed, "--folder", str(folder), *size],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"seed {seed}" in said
    result = json.loads((folder / "result.json").read_text())
    assert result["kills"] == dict.fromkeys(ROLES, 1), said
    assert result["wrong"] == []
    assert result["numbers"]["escrows"] == 16
    assert result["numbers"]["settlement commands"] == 200
    assert CommandLine(folder).nothing_runs()
