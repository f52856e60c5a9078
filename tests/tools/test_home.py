from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.local.home import PREFERRED_PORTS, Home, StackFile, write_atomically
from tools.local.process import ProcessId


def a_stack() -> StackFile:
    return StackFile(
        api_url="http://127.0.0.1:1",
        temporal_address="127.0.0.1:2",
        temporal_ui_url=None,
        database_url="postgresql://x@127.0.0.1/x",
        api_key_file="key",
        pids={"api": 1},
        build_id="b",
        code="c",
    )


@contextmanager
def chosen(home: Home) -> Iterator[dict[str, int]]:
    ports = home.choose_ports()
    try:
        yield dict(ports.by_role)
    finally:
        ports.release()


def test_two_homes_choose_different_ports_and_keep_them(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "a"), Home(tmp_path / "b")
    with chosen(first) as first_ports, chosen(second) as second_ports:
        assert first_ports.keys() == PREFERRED_PORTS.keys()
        assert not set(first_ports.values()) & set(second_ports.values())
    with chosen(second) as again:
        assert again == second_ports


def test_a_port_taken_by_somebody_else_is_replaced(tmp_path: Path) -> None:
    with chosen(Home(tmp_path)) as first:
        pass
    with socket.socket() as stranger:
        # Connections of an earlier test's server may still be winding down on its port.
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", first["api"]))
        stranger.listen()
        with chosen(Home(tmp_path)) as second:
            assert second["api"] != first["api"]
            assert {**second, "api": 0} == {**first, "api": 0}


def test_the_lock_is_held_once_and_freed_with_its_holder(tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    assert not home.is_locked()
    lock = home.lock()
    assert lock is not None
    assert home.is_locked()
    assert home.lock() is None
    lock.close()
    assert not home.is_locked()


def test_broken_files_read_as_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for content in ("", "{", "[]", '{"api_url": 1}', '{"x": [1]}'):
        home.stack_file.write_text(content)
        (tmp_path / "processes.json").write_text(content)
        assert home.read_stack() is None
        assert home.read_processes() == {}


def test_files_are_read_back_and_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path)
    myself = ProcessId.of(os.getpid())
    assert myself is not None
    home.write_stack(a_stack())
    home.write_processes({"me": myself})
    assert home.read_stack() == a_stack()
    assert home.read_processes() == {"me": myself}
    assert json.loads(home.stack_file.read_text())["pids"] == {"api": 1}
    home.forget_stack()
    assert home.read_stack() is None
    assert home.read_processes() == {}


def test_a_reused_pid_is_not_mistaken_for_the_old_process() -> None:
    myself = ProcessId.of(os.getpid())
    assert myself is not None
    assert myself.alive()
    assert not ProcessId(myself.pid, myself.started - 1).alive()


def test_secrets_are_written_for_the_owner_alone(tmp_path: Path) -> None:
    write_atomically(tmp_path / "key", "secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["key"]
