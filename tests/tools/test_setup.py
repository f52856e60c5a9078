"""The set-up script on machines that lack something. Stand-in interpreters answer the script's questions."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A stand-in answers `-c CODE` by what the code asks: the version, venv, or something to print.
INTERPRETER = """#!/bin/sh
case "$2" in
    *version_info\\ \\<*) exit {old} ;;
    *ensurepip*) exit {bare} ;;
    *version_info*) echo 3.11 ;;
    *platform*) echo 3.9.2 ;;
    *) echo "made by $(basename "$0")"; exit 7 ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout with the script and locks, and an empty folder of programs."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for program in ("sh", "sed", "cut", "dirname", "basename", "rm", "touch", "mkdir"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def install(machine: Path, name: str, *, old: bool = False, bare: bool = False) -> None:
    program = machine / "bin" / name
    program.write_text(INTERPRETER.format(old=int(old), bare=int(bare)))
    program.chmod(0o755)


def setup(machine: Path) -> str:
    """What the script says; it always fails here, the stand-ins cannot make an environment."""
    done = subprocess.run(
        [machine / "tools" / "setup.sh"],
        env={"PATH": str(machine / "bin"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_no_python(machine: Path) -> None:
    assert "Python 3.11 or newer is needed, and no python3 was found" in setup(machine)


def test_an_old_python(machine: Path) -> None:
    install(machine, "python3", old=True)
    assert "Python 3.11 or newer is needed; python3 is 3.9.2" in setup(machine)


def test_a_newer_one_beside_an_old_one_is_taken(machine: Path) -> None:
    install(machine, "python3", old=True)
    install(machine, "python3.12")
    assert "made by python3.12" in setup(machine)


def test_a_python_without_venv(machine: Path) -> None:
    install(machine, "python3", bare=True)
    assert "apt-get install python3.11-venv" in setup(machine)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = makefile.partition(".PHONY:")[2].partition("\n")[0].split()
    # This run may itself be make's; an inner make would say which folder it enters.
    command = ["make", "--no-print-directory", "help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    assert [line.split()[1] for line in said.splitlines()] == phony


def test_ci_runs_make_test() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if "make" in line and not line.startswith("#")] == ["exec make test"]
