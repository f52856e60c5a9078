"""docker-compose.yml as data, and a way to run its commands without a container engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OUR_IMAGE = re.compile(r"^holdfast:")

# Refuses what the image does not have: every installed package that is not in the runtime lock.
GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not in the image", name=name)
sys.meta_path.insert(0, Guard())
"""


def load() -> dict[str, Any]:
    """The file as it is, with its anchors followed and its variables left alone."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def is_job(service: Mapping[str, Any]) -> bool:
    """Whether a service runs once and ends."""
    return str(service["restart"]).startswith("on-failure")


def is_ours(service: Mapping[str, Any]) -> bool:
    return OUR_IMAGE.match(service["image"]) is not None


def locked_names() -> set[str]:
    """The packages of the runtime lock."""
    lock = (ROOT / "requirements" / "runtime.txt").read_text()
    return {_canonical(name) for name in re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", lock, re.MULTILINE)}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(slots=True)
class Native:
    """Runs services of ours as processes: hosts and ports of the file become those of local servers."""

    services: Mapping[str, Any]
    places: Mapping[str, str]
    guard_folder: Path
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        locked = locked_names()
        absent = {
            module
            for module, names in packages_distributions().items()
            if not any(_canonical(name) in locked for name in names) and module not in ("pip", "_distutils_hack")
        }
        (self.guard_folder / "sitecustomize.py").write_text(GUARD.format(absent=absent))

    def text(self, value: str) -> str:
        """A value with `${NAME…}` filled in and the file's places replaced by local ones."""
        value = re.sub(r"\$\{(\w+)[^}]*\}", r"\1", value)
        for place, local in self.places.items():
            value = value.replace(place, local)
        return value

    def environment(self, name: str) -> dict[str, str]:
        given = {key: self.text(str(value)) for key, value in self.services[name].get("environment", {}).items()}
        plain = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return {**plain, **given, **self.overrides, "PYTHONPATH": str(self.guard_folder), "PYTHONUNBUFFERED": "1"}

    def command(self, words: list[str]) -> list[str]:
        assert words[0] == "python", words
        return [sys.executable, *(self.text(word) for word in words[1:])]

    def run(self, name: str) -> str:
        """Run a job to its end; what it printed."""
        done = subprocess.run(
            self.command(self.services[name]["command"]),
            cwd=ROOT,
            env=self.environment(name),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, name: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a service that stays."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self.command(self.services[name]["command"]),
                cwd=ROOT,
                env=self.environment(name),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check passes."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        check = subprocess.run(
            self.command(words), cwd=ROOT, env=self.environment(name), capture_output=True, timeout=30, check=False
        )
        return check.returncode == 0
