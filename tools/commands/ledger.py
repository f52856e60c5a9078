"""`ledger verify`: recompute everything that was sealed, and name the first row that is not as it was."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from kit.signing import KeyUnusable, load_public
from tools.commands.console import say
from tools.commands.seal_key import public_half
from tools.local.home import Home
from tools.local.postgres import EmbeddedPostgres
from tools.local.process import StackError
from tools.seals.findings import Finding
from tools.seals.verify import READERS, Report, verify

#: The check could not be made; 1 says that something was found.
EXIT_UNCHECKED = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    actions = parser.add_subparsers(dest="action", required=True)
    check = actions.add_parser(
        "verify", help="0: all is as it was sealed; 1: something is not; 3: could not be checked"
    )
    check.add_argument("--database-url", help="default: DATABASE_URL, else the local stack's, which need not be up")
    check.add_argument(
        "--checkpoints",
        type=Path,
        action="append",
        metavar="DIR",
        help="the checkpoints outside the database, may be given more than once; default: CHECKPOINT_DIR, else the"
        " local stack's",
    )
    check.add_argument(
        "--public-key",
        type=Path,
        action="append",
        metavar="FILE",
        help="whose signature counts, more than one after a change of keys; default: the one beside SEAL_KEY_FILE, else"
        " the local stack's",
    )
    check.add_argument("--stream", choices=sorted(READERS), default="ledger", help="what is checked")
    check.add_argument("--since-batch", type=int, default=1, metavar="N", help="leave out what lies before this batch")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    home = Home.from_environment()
    key_file = Path(os.environ.get("SEAL_KEY_FILE") or home.seal_key_file)
    try:
        keys = [load_public(file) for file in options.public_key or [public_half(key_file)]]
        directories = options.checkpoints or [Path(os.environ.get("CHECKPOINT_DIR") or home.checkpoints)]
        with _database(options.database_url or os.environ.get("DATABASE_URL"), home) as url:
            report = verify(
                url, directories=directories, keys=keys, since_batch=options.since_batch, stream=options.stream
            )
    except Finding as finding:
        say(f"NOT as it was sealed: {finding}")
        return 1
    except (KeyUnusable, StackError, OSError, psycopg.Error) as error:
        say(f"could not be checked: {' '.join(str(error).split())}")
        return EXIT_UNCHECKED
    for line in _told(report, options.stream):
        say(line)
    return 0


@contextmanager
def _database(url: str | None, home: Home) -> Iterator[str]:
    """The database: named, of the running stack, or of a stack that is down, whose Postgres alone is started."""
    if url:
        yield url
        return
    lock = home.lock() if home.postgres_data.exists() else None
    if lock is None:
        stack = home.read_stack()
        if stack is None:
            raise StackError(f"there is no database in {home.root}: set DATABASE_URL, or `make up` first")
        yield stack.database_url
        return
    with lock, EmbeddedPostgres(home.postgres_data, log=home.log("postgres")) as server:
        yield server.url


def _told(report: Report, stream: str) -> Iterator[str]:
    rate = int(report.entries / report.seconds) if report.seconds else 0
    yield "the ledger is as it was sealed" if stream == "ledger" else "the log of alerts is as it was sealed"
    yield f"  entries      {report.entries:,} in {report.batches:,} batches, {rate:,} a second"
    last = f", the last of {report.last_checkpoint_at}" if report.last_checkpoint_at else ""
    yield f"  checkpoints  {report.checkpoints:,} ({', '.join(report.origins) or 'none'}){last}"
    if stream == "ledger":
        yield f"  books        {report.accounts:,} accounts and {report.holds:,} holds are the sums of their legs"
    yield f"  not yet      {report.unsealed:,} entries not sealed, {report.unsigned_batches:,} batches not signed"
