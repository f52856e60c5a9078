"""`prices`: show and set an operator's own prices, refresh all, add the past, accept what waits for a person."""

from __future__ import annotations

import argparse
import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from domain.errors import Unavailable
from tools import prices
from tools.commands.console import say
from tools.local.home import Home
from tools.local.process import StackError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="the prices as everybody reads them, and those of the manual file")
    setting = actions.add_parser("set", help="set prices in the manual file, as of now")
    setting.add_argument("prices", nargs="+", metavar="ASSET=PRICE", help="in US dollars, as ETH=2345.67")
    start = actions.add_parser("start", help="make sure that there is a manual file")
    for each in (show, setting, start):
        each.add_argument(
            "--file", type=Path, help="the manual file; default: PRICES_MANUAL_FILE, else the local stack's"
        )
    refresh = actions.add_parser("refresh", help="ask every source now")
    refresh.add_argument("--if-possible", action="store_true", help="leave it to the schedule where nobody answers")
    past = actions.add_parser("import", help="add prices of the past from a CSV file with asset, at, price")
    past.add_argument("csv", type=Path)
    accepting = actions.add_parser("accept", help="confirm the next price of an asset, wherever it comes from")
    accepting.add_argument("asset")
    for each in (show, past, accepting):
        each.add_argument("--database-url", help="default: DATABASE_URL, else the running local stack's")


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    now = datetime.now(UTC)
    match options.action:
        case "show":
            for line in prices.told(prices.current(_database(options)).values(), now):
                say(line)
            file = _file(options)
            for asset, entry in sorted(prices.manual(file).items()):
                say(f"  {file.name}: {asset} = {entry['price'] if isinstance(entry, dict) else entry}")
        case "set":
            for asset, price in prices.set_manual(_file(options), options.prices, now).items():
                say(f"{asset} is {price} from the next refresh on")
        case "start":
            made = prices.start_manual(_file(options))
            say(f"{'starting prices were written to' if made else 'prices are in'} {_file(options)}")
        case "refresh":
            try:
                asyncio.run(_refresh())
            except Unavailable as error:
                if not options.if_possible:
                    raise StackError(str(error)) from error
                say(f"left to the schedule: {error}")
        case "import":
            say(f"{prices.import_csv(_database(options), options.csv)} prices of the past are new")
        case "accept":
            if not prices.accept(_database(options), options.asset):
                raise StackError(f"{options.asset} has no price")
            say(f"the next price of {options.asset} with quorum is confirmed at once")
    return 0


def _file(options: argparse.Namespace) -> Path:
    found = options.file or os.environ.get("PRICES_MANUAL_FILE") or Home.from_environment().prices_file
    return Path(found)


def _database(options: argparse.Namespace) -> str:
    stack = Home.from_environment().read_stack()
    found = options.database_url or os.environ.get("DATABASE_URL") or (stack and stack.database_url)
    if not found:
        raise StackError("set DATABASE_URL, or `make up` first")
    return str(found)


async def _refresh() -> None:
    # Only this one speaks to Temporal, whose client takes a second to load.
    from db.ids import new_id
    from tools.settings import TemporalSettings, load
    from tools.temporal import connect
    from workflows.client import PriceClient
    from workflows.prices import RefreshPrices

    stack = Home.from_environment().read_stack()
    if stack is not None:
        os.environ.setdefault("TEMPORAL_ADDRESS", stack.temporal_address)
    settings = load(TemporalSettings)
    client = PriceClient(await connect(settings), settings.temporal_task_queue)
    outcome = await client.refresh(new_id(), RefreshPrices(), summary="prices refreshed from the command line")
    for verdict in outcome.verdicts:
        say(f"  {verdict.asset:<8} {verdict.source}: {verdict.left_out or verdict.price}")
    say(f"tick {outcome.tick}: {', '.join(outcome.changed)}" if outcome.tick else "no price changed")
