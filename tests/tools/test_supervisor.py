"""The supervisor, over small stand-in programs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tools.local.process import ProcessId, StackError, wait_until
from tools.local.supervisor import Service, Supervisor, Task

# Says that it is ready by a file, notes the order of endings, and ends when asked.
PROGRAM = """
import pathlib, signal, sys, time
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
def end(*_):
    with (folder / "ended").open("a") as file: file.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(name, "runs", flush=True)
(folder / f"{name}.ready").touch()
while True: time.sleep(0.05)
"""

THINKING = "import time; print('thinking', flush=True); time.sleep(60)"


def service(name: str, folder: Path, program: str = PROGRAM, limit_seconds: float = 10) -> Service:
    return Service(
        name,
        command=lambda: [sys.executable, "-c", program, name, str(folder)],
        ready=(folder / f"{name}.ready").exists,
        log=folder / f"{name}.log",
        start_limit_seconds=limit_seconds,
    )


def task(name: str, folder: Path, code: str) -> Task:
    return Task(name, [sys.executable, "-c", code], log=folder / f"{name}.log")


@contextmanager
def watching(supervisor: Supervisor) -> Iterator[list[str]]:
    """Start, and watch in a thread; the thread's failure is in the list."""
    failures: list[str] = []

    def watch() -> None:
        try:
            supervisor.watch()
        except StackError as failure:
            failures.append(str(failure))

    supervisor.start()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield failures
    finally:
        supervisor.request_stop()
        thread.join(30)
        assert not thread.is_alive()


def test_steps_run_in_order_and_end_in_reverse(tmp_path: Path) -> None:
    said: list[str] = []
    between = task("between", tmp_path, f"assert open({str(tmp_path / 'one.ready')!r})")
    supervisor = Supervisor([service("one", tmp_path), between, service("two", tmp_path)], said.append)
    with watching(supervisor):
        assert list(supervisor.pids()) == ["supervisor", "one", "two"]
    assert (tmp_path / "ended").read_text().split() == ["two", "one"]
    assert [line.partition(":")[0] for line in said] == ["one", "between", "two", "two", "one"]


def test_a_killed_child_is_restarted_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor([service("one", tmp_path)], said.append)
    with watching(supervisor):
        first = supervisor.pids()["one"]
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: supervisor.pids()["one"] != first, limit_seconds=10)
        assert wait_until(lambda: "one runs\none runs" in (tmp_path / "one.log").read_text(), limit_seconds=10)
    assert any(f"(pid {first}) was ended by SIGKILL; restarting" in line for line in said), said


def test_pids_are_reported_at_every_change(tmp_path: Path) -> None:
    seen: list[int] = []
    supervisor = Supervisor([service("one", tmp_path)], lambda _: None, on_change=lambda pids: seen.append(pids["one"]))
    with watching(supervisor):
        os.kill(supervisor.pids()["one"], signal.SIGKILL)
        assert wait_until(lambda: len(seen) == 2, limit_seconds=10)


def test_it_gives_up_on_a_child_that_cannot_stay_up(tmp_path: Path) -> None:
    broken = f"""
import pathlib, sys
ready = pathlib.Path({str(tmp_path / "one.ready")!r})
if ready.exists(): sys.exit("this cannot work")
ready.touch()
import time; time.sleep(0.3)
"""
    supervisor = Supervisor(
        [service("one", tmp_path, broken), service("two", tmp_path)], lambda _: None, quick_deaths_max=3
    )
    with watching(supervisor) as failures:
        assert wait_until(lambda: bool(failures), limit_seconds=30)
    assert "giving up" in failures[0]
    assert "this cannot work" in failures[0]
    assert (tmp_path / "ended").read_text().split() == ["two"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda folder: task("bad", folder, "import sys; sys.exit('no such table')"), "no such table"),
        (lambda folder: service("bad", folder, "import sys; sys.exit('port taken')"), "port taken"),
        (
            lambda folder: service("bad", folder, "import time; print('thinking', flush=True); time.sleep(60)", 1),
            "thinking",
        ),
        (lambda folder: Task("bad", ["/no/such/program"], folder / "bad.log"), "No such file"),
    ],
    ids=["task", "service", "never ready", "missing program"],
)
def test_a_failed_start_shows_the_log_and_leaves_nothing(tmp_path: Path, step: object, reason: str) -> None:
    assert callable(step)
    supervisor = Supervisor([service("one", tmp_path), step(tmp_path)], lambda _: None)
    with pytest.raises(StackError, match=reason):
        supervisor.start()
    assert list(supervisor.pids()) == ["supervisor"]
    assert (tmp_path / "ended").read_text().split() == ["one"]


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = PROGRAM.replace("signal.signal(signal.SIGTERM, end)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    said: list[str] = []
    stubborn = replace(service("one", tmp_path, deaf), stop_limit_seconds=0.5)
    supervisor = Supervisor([stubborn], said.append)
    with watching(supervisor):
        child = ProcessId.of(supervisor.pids()["one"])
    assert child is not None
    assert not child.alive()
    assert said[-1] == "one: had to be killed"
