from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tools.local.postgres import EmbeddedPostgres, PostgresError, run_as
from tools.local.process import ProcessId, wait_until


def query(server: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_starts_with_the_database_and_statistics(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as server:
        assert query(server, "SELECT current_setting('server_version_num')::int >= 180000") == [(True,)]
        query(server, "CREATE EXTENSION pg_stat_statements")
        assert query(server, "SELECT count(*) > 0 FROM pg_stat_statements") == [(True,)]
        assert query(server, "SELECT current_database(), current_setting('TimeZone')") == [("holdfast", "UTC")]


def test_data_survive_a_stop_and_a_kill(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg")
    with server:
        query(server, "CREATE TABLE kept (n int)")
        query(server, "INSERT INTO kept VALUES (1)")
    with server:
        query(server, "INSERT INTO kept VALUES (2)")
        server.kill()
        server.start()
        assert query(server, "SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


@pytest.mark.parametrize("foreign_pid", [1, os.getpid()], ids=["init", "ourselves"])
def test_a_stale_pid_file_that_names_a_stranger_is_cleared(tmp_path: Path, foreign_pid: int) -> None:
    server = EmbeddedPostgres(tmp_path / "pg")
    with server:
        pid_file = server.data_dir / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        server.kill()
        pid_file.write_text("\n".join([str(foreign_pid), *lines[1:]]) + "\n")
        server.start()
        assert query(server, "SELECT 1") == [(1,)]
    assert ProcessId.of(1) is not None


def test_a_server_that_is_alive_is_not_disturbed(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as first:
        second = EmbeddedPostgres(tmp_path / "pg", stop_limit_seconds=0.5)
        with pytest.raises(PostgresError, match=f"pid {first.pid}"):
            second.start()
        assert query(first, "SELECT 1") == [(1,)]


def test_an_interrupted_initdb_does_not_block_the_next(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir()
    half_done = tmp_path / "pg.new"
    half_done.mkdir()
    (half_done / "pg_hba.conf").write_text("half")
    with EmbeddedPostgres(tmp_path / "pg") as server:
        assert query(server, "SELECT 1") == [(1,)]


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg", settings={"shared_buffers": "nonsense"})
    with pytest.raises(PostgresError, match="shared_buffers"):
        server.start()


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tools.local.postgres import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pg")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as output:
        postmaster = ProcessId.of(int(output.readline()))
    assert postmaster is not None
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    assert wait_until(lambda: not postmaster.alive(), limit_seconds=20)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_runs_it_as_nobody_below_a_closed_folder(tmp_path: Path) -> None:
    """In a user namespace where those are allowed; the folder may be root's alone."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    if not run_as().prefix:
        with pytest.raises(PostgresError, match="nobody cannot enter"):
            EmbeddedPostgres(closed / "pg").start()
        return
    with EmbeddedPostgres(closed / "pg") as server:
        assert query(server, "SELECT 1") == [(1,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_becomes_nobody_where_namespaces_are_forbidden(tmp_path: Path) -> None:
    """A PATH without `unshare` stands in for a machine that forbids namespaces."""
    folder = Path("/var/tmp") / f"holdfast-test-{os.getpid()}"
    code = (
        "import sys, psycopg; from pathlib import Path\n"
        "from tools.local.postgres import EmbeddedPostgres, run_as\n"
        "assert run_as().user_id == 65534, run_as()\n"
        "with EmbeddedPostgres(Path(sys.argv[1])) as server: psycopg.connect(server.url).close()\n"
        "print('reached')"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder / "pg")],
            env={**os.environ, "PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert "reached" in done.stdout or "nobody cannot enter" in done.stderr, done.stderr
