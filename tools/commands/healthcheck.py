"""`healthcheck URL`: for container health checks, which have no curl."""

from __future__ import annotations

import argparse

from tools.local.http import http_ok


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("url")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return 0 if http_ok(options.url, timeout_seconds=5.0) else 1
