"""The worker's settings of a broker: what is wrong is named before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.build import ROOT
from kit.settings import WorkerSettings
from outside import create_publisher

SERVERS = {
    "DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
    "TEMPORAL_ADDRESS": "127.0.0.1:1",
    "SEAL_KEY_FILE": "/nowhere.pem",
    "CHECKPOINT_DIR": "/nowhere",
}
NEEDED = {name.lower(): value for name, value in SERVERS.items()}


def worker(**environment: str) -> subprocess.CompletedProcess[str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("DATABASE_", "TEMPORAL_", "NATS_"))}
    return subprocess.run(
        [sys.executable, "worker.py"],
        cwd=ROOT,
        env={**plain, **SERVERS, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NATS_URL", "http://127.0.0.1:4222"),
        ("NATS_URL", "127.0.0.1:4222"),
        ("NATS_URL", "nats://127.0.0.1:x"),
        ("NATS_URL", "nats://127.0.0.1:4222,"),
        ("NATS_STREAM", "a.b"),
        ("NATS_SUBJECT_PREFIX", "a..b"),
        ("NATS_SUBJECT_PREFIX", "a.>"),
        ("NATS_DUPLICATE_WINDOW_SECONDS", "0"),
        ("NATS_CA_FILE", "/nowhere.pem"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    done = worker(**{name: value})
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"configuration: {name} ")
    assert len(done.stderr.splitlines()) == 1


def test_without_an_address_there_is_no_broker() -> None:
    assert create_publisher(WorkerSettings.model_validate(NEEDED)) is None


def test_several_addresses_are_one_broker(tmp_path: Path) -> None:
    made = create_publisher(
        WorkerSettings.model_validate(
            NEEDED | {"nats_url": "nats://127.0.0.1:4222, tls://user:word@127.0.0.1:4223", "nats_stream": "DESK"}
        )
    )
    assert made is not None
    assert made.stream == "DESK"
