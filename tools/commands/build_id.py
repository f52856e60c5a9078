"""`build-id`: print the build id of this source."""

from __future__ import annotations

import argparse

from kit.build import build_id
from tools.commands.console import say


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """Do it; the exit status."""
    say(build_id())
    return 0
