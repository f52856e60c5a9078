"""`status`: show what is running."""

from __future__ import annotations

import argparse

from tools.commands.console import say
from tools.local import control
from tools.local.home import Home


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return control.status(Home.from_environment(), say)
