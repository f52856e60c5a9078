"""No container engine runs here: the file is checked as data, and every command of ours in it is run natively."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest

from tests.house.compose import ROOT, Native, is_job, is_ours, load
from tools.local.postgres import EmbeddedPostgres, binaries
from tools.local.process import free_port, stop, tail, wait_until
from tools.local.temporal import TemporalDevServer

PASSWORDS = ("HOLDFAST_MIGRATOR_PASSWORD", "HOLDFAST_WORKER_PASSWORD", "HOLDFAST_API_PASSWORD", "TEMPORAL_PASSWORD")
SERVICES: dict[str, Any] = load()["services"]


def test_it_follows_the_compose_schema() -> None:
    schema = resources.files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_text()
    jsonschema.validate(load(), json.loads(schema))


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_pinned_watched_and_not_root(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+(\.\d+)?", service["image"]), "an image is pinned to a version"
    uid, _, gid = str(service["user"]).partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert is_job(service) or "healthcheck" in service
    assert is_job(service) or service["restart"] == "unless-stopped"
    for other, how in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if is_job(SERVICES[other]) else "service_healthy"
        assert how["condition"] == wanted
    for port in service.get("ports", []):
        assert str(port).startswith("127.0.0.1:"), "published on this machine alone"
    if is_ours(service):
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_the_topology_is_whole() -> None:
    ours = {name for name, service in SERVICES.items() if is_ours(service)}
    assert ours == {"migrate", "register", "seal-key", "prices", "worker", "deploy", "first-key", "api"}
    assert SERVICES["worker"]["deploy"]["replicas"] == "${WORKER_REPLICAS:-2}"
    assert set(SERVICES) - ours == {"postgres", "temporal-schema", "temporal", "temporal-namespace", "temporal-ui"}


def test_no_password_is_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.findall(r"(?i)(?:password|pwd): (?!\$\{\w+:\?)\S+", text)
    assert not re.findall(r"postgresql://\w+:(?!\$\{\w+:\?\})", text)
    example = (ROOT / ".env.example").read_text()
    for name in set(re.findall(r"\$\{(\w+)", text)):
        assert re.search(rf"^{name}=\S", example, re.MULTILINE), f".env.example lacks {name}"


def test_mounted_files_exist() -> None:
    mounts = [str(mount) for service in SERVICES.values() for mount in service.get("volumes", [])]
    local = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert local
    for path in local:
        assert (ROOT / path).exists()
    for script in (ROOT / "deploy" / "temporal").glob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True)


def test_the_image_is_pinned_and_not_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"python:3.11.15-slim"}
    assert "--require-hashes" in dockerfile
    user = re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)
    assert user == [service["user"] for service in SERVICES.values() if is_ours(service)][:1]


def initialise(server: EmbeddedPostgres) -> None:
    """What the postgres image does with the init script on an empty server."""
    script = ROOT / "deploy" / "postgres" / "init.sql"
    environment = {**os.environ, **{name: name for name in PASSWORDS}}
    done = subprocess.run(
        [binaries() / "psql", "--no-psqlrc", "--quiet", "--dbname", server.url_of("postgres"), "--file", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
def test_every_command_of_ours_runs_with_just_the_rights_it_has(tmp_path: Path) -> None:
    (tmp_path / "guard").mkdir()
    with (
        EmbeddedPostgres(tmp_path / "pg", database="postgres") as postgres,
        TemporalDevServer(None, tmp_path / "temporal.log", ui_port=None) as temporal,
    ):
        initialise(postgres)
        api_port, health_port = free_port(), free_port()
        places = {
            "@postgres:5432/": f"@127.0.0.1:{postgres.port}/",
            "temporal:7233": temporal.address,
            "127.0.0.1:8080": f"127.0.0.1:{api_port}",
            "127.0.0.1:8081": f"127.0.0.1:{health_port}",
            "0.0.0.0": "127.0.0.1",
            "/keys/": f"{tmp_path}/",
            "/seal/": f"{tmp_path}/",
            "/checkpoints": f"{tmp_path}/checkpoints",
            "/prices/": f"{tmp_path}/",
            "/chains.toml": str(ROOT / "deploy" / "chains.toml"),
        }
        ports = {"API_PORT": str(api_port), "WORKER_HEALTH_PORT": str(health_port)}
        native = Native(SERVICES, places, tmp_path / "guard", ports)
        assert "revision" in native.run("migrate")
        assert "revision" in native.run("migrate"), "a second start finds nothing to do"
        assert "added" in native.run("register")
        assert "a new key was written" in native.run("seal-key")
        native.run("prices")
        assert "ETH" in (tmp_path / "manual.toml").read_text()
        running = []
        try:
            for name, job_after in (("worker", "deploy"), ("api", "first-key")):
                log = tmp_path / f"{name}.log"
                running.append(native.start(name, log))
                assert wait_until(lambda name=name: native.healthy(name), limit_seconds=60), tail(log)  # type: ignore[misc]
                native.run(job_after)
        finally:
            for process in reversed(running):
                stop(process, first=signal.SIGTERM, limit_seconds=30)
        assert (tmp_path / "api-key").read_text().startswith("hf_")
        no_login_is_more_than_it_should_be(postgres)


def no_login_is_more_than_it_should_be(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url_of("holdfast")) as connection:
        powers = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname <> 'postgres'"
            " AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication)"
        ).fetchall()
        assert powers == []
    for login in ("holdfast_api", "holdfast_worker"):
        url = f"postgresql://{login}@127.0.0.1:{postgres.port}/holdfast"
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(*) FROM tenants")
    with psycopg.connect(f"postgresql://holdfast_api@127.0.0.1:{postgres.port}/holdfast") as connection:
        connection.execute("SET ROLE holdfast_app")
        assert connection.execute("SELECT count(*) FROM tenants").fetchone() == (0,), "row-level security hides tenants"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SET ROLE holdfast_engine")
