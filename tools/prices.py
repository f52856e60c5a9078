"""An operator's own prices: the manual file, prices of the past, and what no refresh may accept by itself."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import ledger
from db import prices as db_prices
from db.engine import Role, create_engine, transaction
from db.prices import writing
from domain.errors import Unavailable
from domain.prices.model import Price, price_of, price_text
from tools.local.home import write_atomically
from tools.local.process import StackError

T = TypeVar("T")

#: What a fresh stack begins with: figures to play with, not the market's.
STARTING = {"BTC": "90000", "DAI": "1", "ETH": "3000", "USDC": "1", "USDT": "1"}
IMPORT_ROWS = 5_000
#: An import that spans more months names the wrong century.
IMPORT_MONTHS_MAX = 600

_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,19}\Z")
_HEAD = """\
# Prices that an operator vouches for, in US dollars. An entry with `at` ages from then; one without stands until it
# is changed. `python -m tools prices set ETH=2345.67` changes this file in one step.
"""


class PricesError(StackError):
    """The prices cannot be used, or not be kept."""


def start_manual(file: Path) -> bool:
    """Write the starting prices where there is no file yet; whether there was none."""
    if file.exists():
        return False
    _write(file, dict(STARTING))
    return True


def manual(file: Path) -> Mapping[str, Any]:
    """The entries of the manual file by asset."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, ArithmeticError) as error:
        raise PricesError(f"{file}: {error}") from None


def set_manual(file: Path, said: Sequence[str], at: datetime) -> Mapping[str, str]:
    """Set ``ASSET=PRICE`` as of ``at``, in one step; the others stay as they are."""
    changes = dict(_assignment(each) for each in said)
    stamped = {asset: {"price": price_text(price), "at": at} for asset, price in changes.items()}
    _write(file, {**manual(file), **stamped})
    return {asset: price_text(price) for asset, price in changes.items()}


def current(database_url: str) -> Mapping[str, Price]:
    """The prices as everybody reads them."""
    return _with_connection(database_url, db_prices.current)


def accept(database_url: str, asset: str) -> bool:
    """Let the next price of an asset be confirmed wherever it comes from; False where it has no price."""
    return _with_connection(database_url, lambda connection: writing.accept(connection, asset))


def import_csv(database_url: str, file: Path) -> int:
    """Add prices of the past from a file with the columns ``asset``, ``at`` and ``price``; how many are new."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source)
            if missing := {"asset", "at", "price"} - set(reader.fieldnames or ()):
                raise PricesError(f"{file} has no column {', '.join(sorted(missing))}")
            rows = [_past(file, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PricesError(f"{file}: {error}") from None
    return _with_connection(database_url, lambda connection: _import(connection, file, rows))


async def _import(connection: AsyncConnection, file: Path, rows: Sequence[tuple[str, datetime, int]]) -> int:
    known = {asset.symbol for asset in await ledger.list_assets(connection)}
    if unknown := sorted({asset for asset, _, _ in rows} - known):
        raise PricesError(f"{file} has assets that nobody knows: {', '.join(unknown)}")
    months = sorted({date(at.year, at.month, 1) for _, at, _ in rows})
    if len(months) > IMPORT_MONTHS_MAX:
        raise PricesError(f"{file} spans {len(months)} months, {IMPORT_MONTHS_MAX} at most")
    for month in months:
        await writing.ensure_partition(connection, month)
    new = 0
    for first in range(0, len(rows), IMPORT_ROWS):
        new += await writing.import_history(connection, rows[first : first + IMPORT_ROWS])
    return new


def _past(file: Path, line: int, row: Mapping[str, str | None]) -> tuple[str, datetime, int]:
    try:
        at = datetime.fromisoformat(row["at"] or "")
    except ValueError:
        raise PricesError(f"{file}, line {line}: {row['at']!r} is no ISO 8601 instant") from None
    if at.tzinfo is None:
        raise PricesError(f"{file}, line {line}: {row['at']!r} has no offset from UTC")
    asset, price = _assignment(f"{row['asset']}={row['price']}", f"{file}, line {line}: ")
    return asset, at.astimezone(UTC), price


def _assignment(said: str, where: str = "") -> tuple[str, int]:
    asset, _, text = said.partition("=")
    try:
        price = price_of(Decimal(text.strip()))
    except InvalidOperation:
        price = None
    if not _SYMBOL.match(asset) or price is None:
        raise PricesError(f"{where}{said!r} is no ASSET=PRICE, as ETH=2345.67")
    return asset, price


def _write(file: Path, entries: Mapping[str, Any]) -> None:
    lines = [f"{_key(asset)} = {_entry(entry)}\n" for asset, entry in sorted(entries.items())]
    try:
        write_atomically(file, _HEAD + "".join(lines))
    except OSError as error:
        raise PricesError(f"{file}: {error}") from None


def _key(asset: str) -> str:
    return json.dumps(asset) if "." in asset else asset


def _entry(entry: Any) -> str:
    if not isinstance(entry, dict):
        return json.dumps(str(entry))
    at = entry.get("at")
    stamp = "" if at is None else f", at = {at.isoformat() if isinstance(at, datetime) else json.dumps(str(at))}"
    return f"{{price = {json.dumps(str(entry.get('price')))}{stamp}}}"


def _with_connection(database_url: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async def run() -> T:
        engine: AsyncEngine = create_engine(database_url, Role.ENGINE, pool_size=1)
        try:
            async with transaction(engine) as connection:
                return await work(connection)
        except Unavailable as error:
            raise PricesError(f"DATABASE_URL: the database does not answer ({error.message})") from error
        except DBAPIError as error:
            raise PricesError(f"DATABASE_URL: {' '.join(str(error.orig).split())}") from error
        finally:
            await engine.dispose()

    return asyncio.run(run())


def told(prices: Iterable[Price], at: datetime) -> list[str]:
    """A line a price, for a terminal."""
    lines = []
    for price in prices:
        age = int((at - price.as_of).total_seconds())
        trust = "confirmed" if price.confirmed else "NOT confirmed"
        lines.append(
            f"  {price.asset:<8} {price_text(price.mid):>24}  {price.quality}, {trust}, {age} s old,"
            f" {', '.join(price.sources)}" + (f" ({price.reason})" if price.reason else "")
        )
    return lines
