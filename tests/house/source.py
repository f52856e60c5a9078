"""The project's own source, as the checks read it."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
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

    @cached_property
    def imported(self) -> dict[str, str]:
        """What each imported name stands for, wherever in the file it is imported."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    names[bound] = alias.name if alias.asname else bound
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return names

    def meaning(self, node: ast.AST) -> str:
        """The dotted name behind an expression of imported names (``datetime.datetime.now``), else nothing."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, "")
        if isinstance(node, ast.Attribute):
            before = self.meaning(node.value)
            return f"{before}.{node.attr}" if before else ""
        return ""


def parse(path: str, text: str) -> Module:
    """A module from text; tests of the checks make theirs with it."""
    return Module(path, text, ast.parse(text))


@cache
def files() -> tuple[str, ...]:
    """Every file of the project, tracked or about to be."""
    listed = subprocess.run(
        # A checkout may belong to another user than the one who runs the tests.
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(sorted(name for name in listed.stdout.splitlines() if (ROOT / name).is_file()))


@cache
def modules() -> tuple[Module, ...]:
    """Every Python file of the project."""
    return tuple(parse(name, (ROOT / name).read_text()) for name in files() if name.endswith(".py"))


def in_rooms(*rooms: str) -> list[Module]:
    """The modules of some rooms."""
    return [module for module in modules() if module.room in rooms]
