"""`first-key`: make sure that a file holds a working API key of a tenant."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.commands.console import say
from tools.settings import DatabaseSettings, load
from tools.tenants import ensure_first_key


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("--tenant", default="local", help="the tenant's name (made when it is missing)")
    parser.add_argument("--file", type=Path, required=True, help="where the key lies")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    made = ensure_first_key(load(DatabaseSettings).database_url, options.tenant, options.file)
    say(f"{'a new key was written to' if made else 'the key is in'} {options.file}")
    return 0
