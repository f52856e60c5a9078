"""`tenant create NAME`: make a tenant and print its first key, once."""

from __future__ import annotations

import argparse

from api.identity import FIRST_KEY_SCOPES
from domain.identity import Scope
from tools.commands.console import say
from tools.settings import DatabaseSettings, load
from tools.tenants import create_tenant


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a tenant")
    create.add_argument("name")
    create.add_argument(
        "--operator", action="store_true", help="its key may do what is the platform's: tenants, prices, parameters"
    )


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    scopes = frozenset(Scope) if options.operator else frozenset(FIRST_KEY_SCOPES)
    tenant, key = create_tenant(load(DatabaseSettings).database_url, options.name, scopes=scopes)
    say(f"tenant {options.name} ({tenant})")
    say(f"its API key, which is not shown again: {key}")
    return 0
