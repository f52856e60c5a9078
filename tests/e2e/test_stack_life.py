"""The stack from start to end to start: data, changed code, crashes, failures."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psycopg
import pytest

from tests.e2e.stack import CommandLine, copy_source, open_funded_escrow, post, running
from tools.local.process import ProcessId

pytestmark = pytest.mark.timeout(300)


def change(file: Path) -> None:
    with file.open("a") as source:
        source.write("\n# changed\n")


def test_escrows_go_on_after_changed_code_and_after_a_crash(tmp_path: Path) -> None:
    root = copy_source(tmp_path / "source")
    with running(CommandLine(tmp_path / "home", root=root)) as commands:
        with commands.http() as client:
            approved_later, released_later = open_funded_escrow(client), open_funded_escrow(client)
        first, key = commands.stack, Path(commands.stack.api_key_file).read_text()

        change(root / "workflows" / "limits.py")
        assert "the code changed" in commands.run("up", "--detach")
        second = commands.stack
        assert second.build_id != first.build_id
        assert (second.api_url, Path(second.api_key_file).read_text()) == (first.api_url, key)
        with commands.http() as client:
            assert post(client, f"escrows/{approved_later}/approvals", {"actor": "alice"})["status"] == "approved"

        commands.kill_supervisor()
        assert commands.nothing_runs()
        leave_stale_files(commands)
        assert "nothing is running" in commands.run("status", status=3)
        commands.run("up", "--detach")
        with commands.http() as client:
            post(client, f"escrows/{approved_later}/release", {"actor": "alice"})
            assert client.get(f"/api/v1/escrows/{approved_later}").json()["status"] == "completed"
            post(client, f"escrows/{released_later}/approvals", {"actor": "alice"})
            assert client.get(f"/api/v1/escrows/{released_later}").json()["status"] == "approved"
        with psycopg.connect(commands.stack.database_url) as connection:
            rows = connection.execute("SELECT escrow_id::text, status FROM escrows").fetchall()
            assert dict(rows) == {approved_later: "completed", released_later: "approved"}
            sums = connection.execute("SELECT sum(available_minor + held_minor) FROM accounts").fetchone()
            assert sums == (0,)
            held = connection.execute("SELECT sum(remaining_minor) FROM holds").fetchone()
            assert held is not None
            assert held[0] > 0

        assert "the data stays" in commands.run("down")
        assert commands.nothing_runs()
        assert not commands.home.stack_file.exists()
        assert "nothing is running" in commands.run("down")


def leave_stale_files(commands: CommandLine) -> None:
    """What a power cut and a reboot leave: pids that by now belong to somebody else."""
    myself = ProcessId.of(os.getpid())
    assert myself is not None
    pid_file = commands.home.postgres_data / "postmaster.pid"
    pid_file.write_text(f"{myself.pid}\n{commands.home.postgres_data}\n")
    stale = {"supervisor": [myself.pid, myself.started - 1], "worker": [1, 0]}
    (commands.home.root / "processes.json").write_text(json.dumps(stale))
    assert commands.home.stack_file.exists()


def test_a_failure_shows_why_and_leaves_nothing(tmp_path: Path) -> None:
    root = copy_source(tmp_path / "source")
    (root / "api" / "main.py").write_text("raise RuntimeError('this build is broken')\n")
    commands = CommandLine(tmp_path / "home", root=root)
    try:
        said = commands.run("up", "--detach", status=1)
        assert "api ended with status 1" in said
        assert "this build is broken" in said
        assert commands.nothing_runs()
        assert not commands.home.stack_file.exists()
        assert "this build is broken" in commands.run("status", status=3)
    finally:
        commands.run("down", status=None)


@pytest.mark.parametrize("arguments", [("up", "--detach"), ("up",)], ids=["detached", "foreground"])
def test_an_interrupted_start_leaves_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    commands = CommandLine(tmp_path / "home")
    try:
        with commands.popen(*arguments) as starting:
            assert starting.stdout is not None
            assert "postgres: ready" in starting.stdout.readline()
            starting.send_signal(signal.SIGINT)
            starting.stdout.read()
            assert starting.wait(60) != 0
        assert commands.nothing_runs()
    finally:
        commands.run("down", status=None)


def test_a_foreground_stack_ends_with_ctrl_c(tmp_path: Path) -> None:
    commands = CommandLine(tmp_path / "home")
    try:
        with commands.popen("up") as up:
            assert up.stdout is not None
            assert any("Ctrl-C ends it" in line for line in up.stdout)
            assert commands.ready()
            up.send_signal(signal.SIGINT)
            said = up.stdout.read()
            assert up.wait(60) == 0
        ended = [line.partition(":")[0] for line in said.splitlines()]
        assert ended == ["api", "worker", "temporal", "postgres"]
        assert commands.nothing_runs()
    finally:
        commands.run("down", status=None)
