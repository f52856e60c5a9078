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
def test_eight_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    seed = os.environ.get("HOLDFAST_SEED") or SEED
    folder = tmp_path / "soak"
    size = ["--kills", "8", "--minutes", "0.35", "--escrows", "20", "--savers", "6", "--commands", "300"]
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
    assert result["kills"] == dict.fromkeys(ROLES, 2), said
    assert result["wrong"] == []
    assert result["numbers"]["escrows"] == 20
    assert result["numbers"]["settlement commands"] == 300
    assert CommandLine(folder).nothing_runs()
