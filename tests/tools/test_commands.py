"""The short commands: what they refuse, and how they say it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from db.ids import new_id
from kit.build import ROOT, WORKER_SOURCES, build_id
from tools.local.postgres import EmbeddedPostgres


def tools(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("DATABASE_", "TEMPORAL_"))}
    return subprocess.run(
        [sys.executable, "-m", "tools", *arguments],
        cwd=ROOT,
        env={**plain, **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "line"),
    [
        (["migrate"], {}, 2, "configuration: DATABASE_URL is not set"),
        (["migrate"], {"DATABASE_URL": "sqlite:///x"}, 2, "configuration: DATABASE_URL String should match"),
        (["migrate"], {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}, 1, "migrate: DATABASE_URL: connection failed"),
        (["register"], {}, 2, "configuration: TEMPORAL_ADDRESS is not set"),
        (["deploy"], {"TEMPORAL_ADDRESS": "nowhere"}, 2, "configuration: TEMPORAL_ADDRESS String should match"),
        (["tenant", "create", "x"], {}, 2, "configuration: DATABASE_URL is not set"),
        (
            ["tenant", "create", "x"],
            {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"},
            1,
            "tenant: DATABASE_URL: the database does not answer",
        ),
    ],
)
def test_a_setting_at_fault_is_named_in_one_line(
    arguments: list[str], environment: dict[str, str], status: int, line: str
) -> None:
    done = tools(*arguments, **environment)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_command_lists_the_known_ones() -> None:
    done = tools("fly")
    assert done.returncode == 2
    assert "unknown command: fly" in done.stderr
    assert "migrate" in done.stderr
    assert tools("--help").returncode == 0


def test_migrations_can_be_read_before_they_run() -> None:
    assert "CREATE TABLE" in tools("migrate", "--sql").stdout


def test_a_tenants_key_is_shown_once_and_stored_as_a_hash(database_url: str, postgres: EmbeddedPostgres) -> None:
    name = f"desk-{new_id()}"
    done = tools("tenant", "create", name, DATABASE_URL=database_url)
    key = re.findall(r"hf_\w+", done.stdout)
    assert done.returncode == 0, done.stderr
    assert len(key) == 1
    with psycopg.connect(postgres.url) as connection:
        hashed = (
            "SELECT tenants.name FROM tenants JOIN api_keys k USING (tenant_id) WHERE k.key_hash = sha256(%s::bytea)"
        )
        assert connection.execute(hashed, [key[0].encode()]).fetchone() == (name,)
    taken = tools("tenant", "create", name, DATABASE_URL=database_url)
    assert (taken.returncode, taken.stdout) == (1, "")
    assert "already" in taken.stderr


def test_the_first_key_is_kept_while_it_works_and_has_every_scope(
    postgres: EmbeddedPostgres, database_url: str, tmp_path: Path
) -> None:
    file, tenant = tmp_path / "key", f"first-{new_id()}"
    arguments = ("first-key", "--tenant", tenant, "--file", str(file))
    assert "new key" in tools(*arguments, DATABASE_URL=database_url).stdout
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_text()
    assert "the key is in" in tools(*arguments, DATABASE_URL=database_url).stdout
    assert file.read_text() == first
    file.write_text("lost\n")
    assert "new key" in tools(*arguments, DATABASE_URL=database_url).stdout
    second = file.read_text()
    assert second not in ("lost\n", first)
    with psycopg.connect(postgres.url) as connection:
        older = "UPDATE api_keys SET scopes = array_remove(scopes, 'commands:write') WHERE key_hash = sha256(%s::bytea)"
        connection.execute(older, [second.strip().encode()])
    assert "new key" in tools(*arguments, DATABASE_URL=database_url).stdout, "one from before a scope existed"
    assert file.read_text() != second


def test_the_build_id_follows_what_workers_run(tmp_path: Path) -> None:
    for source in WORKER_SOURCES:
        target = tmp_path / (source if source.endswith((".py", ".txt", ".json")) else f"{source}/x.py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source)
    first = build_id(tmp_path)
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "x.py").write_text("x")
    (tmp_path / "domain" / "notes.md").write_text("x")
    assert build_id(tmp_path) == first
    for source in WORKER_SOURCES:
        target = tmp_path / (source if source.endswith((".py", ".txt", ".json")) else f"{source}/x.py")
        target.write_text("changed")
        assert build_id(tmp_path) != first
        target.write_text(source)
    assert build_id(tmp_path) == first
    assert tools("build-id").stdout.strip() == build_id()
