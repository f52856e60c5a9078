"""`docs`: write the documents that are made from the code."""

from __future__ import annotations

import argparse

from tools.commands.console import say
from tools.docs import write


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """Do it; the exit status."""
    changed = write()
    say(f"written: {', '.join(changed)}" if changed else "everything is up to date")
    return 0
