"""`fingerprints`: compare the commands of workflow code with the committed ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools import fingerprints
from tools.commands.console import say
from workflows.registry import WORKFLOWS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--accept", action="store_true", help="write the file: the change is deliberate")
    parser.add_argument("--file", type=Path, default=fingerprints.COMMITTED, help="the file to compare with")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status is 1 when code and file differ."""
    now = fingerprints.render(fingerprints.of_workflows(WORKFLOWS))
    path: Path = options.file
    committed = path.read_text(encoding="utf-8") if path.exists() else ""
    changes = fingerprints.difference(committed, now)
    if not changes:
        say("workflow code gives the commands that were committed")
        return 0
    say(changes)
    if options.accept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(now, encoding="utf-8")
        say(f"\nwritten to {path}")
        return 0
    print(f"\n{fingerprints.ADVICE}", end="", file=sys.stderr)
    return 1
