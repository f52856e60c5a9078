"""`up`: start the whole stack."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from tools.commands.console import say
from tools.local import control
from tools.local.home import Home


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("--detach", action="store_true", help="return when everything is ready")
    parser.add_argument("--report-to", type=int, metavar="FD", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    home = Home.from_environment()
    if options.detach:
        return control.up_detached(home, say)
    if options.report_to is not None:
        with os.fdopen(options.report_to, "w") as pipe:
            return control.supervise(home, say=_log_and_tell(pipe), announce=_last_words(pipe))
    return control.up_foreground(home, say)


def _log_and_tell(pipe: TextIO) -> Callable[[str], None]:
    """Into the supervisor's log with the time, and to whoever started us while they still listen."""

    def tell(text: str) -> None:
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", file=sys.stderr, flush=True)
        _write(pipe, text)

    return tell


def _last_words(pipe: TextIO) -> Callable[[str], None]:
    def announce(text: str) -> None:
        _write(pipe, text)
        if not pipe.closed:
            pipe.close()

    return announce


def _write(pipe: TextIO, text: str) -> None:
    if pipe.closed:
        return
    try:
        print(text, file=pipe, flush=True)
    except BrokenPipeError:
        # The terminal went away; the stack goes on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())
