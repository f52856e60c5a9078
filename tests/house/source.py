"""The project's own source, as the checks read it."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("domain", "kit", "db", "activities", "workflows", "api", "tools")


@dataclass(frozen=True)
class Module:
    """A Python file: its path below the root, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The top folder, or the file itself where it lies in none."""
        return self.path.split("/")[0]


def parse(path: str, text: str) -> Module:
    """A module from text; tests of the checks make theirs with it."""
    return Module(path, text, ast.parse(text))


@cache
def files() -> tuple[str, ...]:
    """Every file of the project, tracked or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return tuple(sorted(name for name in listed.stdout.splitlines() if (ROOT / name).is_file()))


@cache
def modules() -> tuple[Module, ...]:
    """Every Python file of the project."""
    return tuple(parse(name, (ROOT / name).read_text()) for name in files() if name.endswith(".py"))


def in_rooms(*rooms: str) -> list[Module]:
    """The modules of some rooms."""
    return [module for module in modules() if module.room in rooms]
