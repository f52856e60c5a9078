"""`migrate`: bring the database's tables up to date."""

from __future__ import annotations

import argparse

from sqlalchemy.exc import DBAPIError

from db import migrate
from tools.commands.console import say
from tools.local.process import StackError
from tools.settings import DatabaseSettings, load


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("--sql", action="store_true", help="print the SQL instead of running it")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    if options.sql:
        say(migrate.upgrade_sql())
        return 0
    settings = load(DatabaseSettings)
    try:
        migrate.upgrade(settings.database_url)
    except OSError as error:
        raise StackError(f"DATABASE_URL: the database does not answer ({error})") from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise StackError(f"DATABASE_URL: {reason}") from error
    say(f"the database is at revision {migrate.head()}")
    return 0
