"""The risk of an account over HTTP, on a database of its own: every test would share the platform's prices."""

from __future__ import annotations

import math
import statistics
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.main import create_app
from db import migrate
from db.engine import Role, create_engine, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.identity import Scope
from domain.margin.risk import SCENARIOS
from kit.settings import ApiSettings
from tests.api.caller import Caller, ok, refused
from tools.local.postgres import EmbeddedPostgres

DAYS = 130
DOLLARS = {"ETH": 2_000, "BTC": 60_000, "USDC": 1}
#: The daily changes of ether in basis points: many small ones, and one bad day. Each is undone by the next.
CALM = (300, -300, 200, -200)
BAD_DAY = 40


@dataclass
class RiskDesk:
    """A tenant on the database of these tests, and how it comes to its accounts."""

    service: Caller
    app_engine: AsyncEngine

    async def open(self, user: str, *positions: tuple[str, str, int], **levels: int) -> None:
        """An account with positions (side, asset, minor units)."""
        tenant = self.service.tenant
        async with tenant_transaction(self.app_engine, tenant) as connection:
            columns = "".join(f", {name}" for name in levels)
            values = "".join(f", {value}" for value in levels.values())
            await connection.execute(
                text(f"INSERT INTO margin_accounts (tenant_id, user_id{columns}) VALUES (:tenant, :user{values})"),
                {"tenant": tenant, "user": user},
            )
            for side, asset, amount in positions:
                await connection.execute(
                    text(
                        "INSERT INTO margin_positions (tenant_id, account_no, side, asset, origin, amount_minor)"
                        " SELECT :tenant, account_no, :side, :asset, 'declared', :amount FROM margin_accounts"
                        " WHERE user_id = :user"
                    ),
                    {"tenant": tenant, "side": side, "asset": asset, "amount": Decimal(amount), "user": user},
                )

    async def risk(self, user: str, **query: Any) -> dict[str, Any]:
        """The account's risk."""
        answer: dict[str, Any] = ok(await self.service.get(f"margin/accounts/{user}/risk", **query))
        return answer


def path_of_ether() -> list[Decimal]:
    """The closes of ether, the last one today's price: up and down, and once down by a fifth for good."""
    price, closes = Decimal(2_000), [Decimal(2_000)]
    for back in range(DAYS - 1):
        change = CALM[back % 4] if back != BAD_DAY else -2_000
        price = (price / (1 + Decimal(change) / 10_000)).quantize(Decimal("1e-18"))
        closes.append(price)
    return closes[::-1]


@pytest.fixture(scope="module")
def risk_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A migrated database for this module."""
    name = f"risk_{new_id().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate.upgrade(postgres.url_of(name))
    yield postgres.url_of(name)
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
async def prices(risk_url: str) -> AsyncIterator[None]:
    """Today's prices, and a history that is imported: ether moves, the dollar does not, bitcoin has a few days."""
    engine = create_engine(risk_url, Role.ENGINE, pool_size=1)
    last = datetime.now(UTC).date() - timedelta(days=1)
    closes = path_of_ether()
    await write_prices(
        engine,
        {
            "ETH": [(last - timedelta(days=back), str(price)) for back, price in enumerate(reversed(closes))],
            "USDC": [(last - timedelta(days=back), "1") for back in range(DAYS)],
            "BTC": [(last - timedelta(days=back), "60000") for back in range(5)],
        },
    )
    yield
    await engine.dispose()


async def write_prices(engine: AsyncEngine, history: dict[str, list[tuple[date, str]]]) -> None:
    """Closes at noon of their days, and the current price of each asset."""
    async with transaction(engine) as connection:
        tick = await connection.scalar(
            text("INSERT INTO price_ticks (refresh_id, refreshed_at) VALUES (gen_random_uuid(), now()) RETURNING tick")
        )
        for month in {day.replace(day=1) for days in history.values() for day, _ in days}:
            await connection.execute(text("SELECT ensure_price_partition(:month)"), {"month": month})
        rows = [
            {"asset": asset, "at": datetime.combine(day, time(12), UTC), "tick": tick, "mid": Decimal(price)}
            for asset, days in history.items()
            for day, price in days
        ]
        await connection.execute(
            text(
                "INSERT INTO price_history (asset, at, tick, mid, low, high, quality, confirmed, as_of, sources)"
                " VALUES (:asset, :at, :tick, :mid, :mid, :mid, 'good', true, :at, '[]')"
            ),
            rows,
        )
        for asset, dollars in DOLLARS.items():
            await connection.execute(
                text(
                    "INSERT INTO prices (asset, tick, mid, low, high, quality, confirmed, as_of, sources, refreshed_at,"
                    " ttl_seconds) VALUES (:asset, :tick, :mid, :mid, :mid, 'good', true, now(), '[]', now(), 5)"
                ),
                {"asset": asset, "tick": tick, "mid": Decimal(dollars)},
            )


@pytest.fixture(scope="module")
async def risk_desk(risk_url: str, prices: None) -> AsyncIterator[RiskDesk]:
    """The application over that database. No worker is needed: nothing is written."""
    engine = create_engine(risk_url, Role.APP, pool_size=2)
    tenant = new_id()
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=tenant, name="risk")
    app = create_app(ApiSettings(database_url=risk_url, temporal_address="127.0.0.1:1", database_pool_size=4))
    async with app.router.lifespan_context(app):
        yield RiskDesk(await Caller(app, tenant, engine, None).key_for(), engine)
    await engine.dispose()


def losses(eth: int, days: int, horizon: int = 1) -> list[Decimal]:
    """The losses of so many ether over the window, the greatest first."""
    closes = path_of_ether()[-(days + horizon) :]
    lost = [
        eth * 2_000 * (1 - later / before) for before, later in zip(closes[:-horizon], closes[horizon:], strict=True)
    ]
    return sorted(lost, reverse=True)


def near(found: str, expected: Decimal) -> bool:
    return abs(Decimal(found) - expected) < Decimal("1e-7")


ETH10 = ("collateral", "ETH", 10 * 10**18)
OWES = ("borrow", "USDC", 15_000 * 10**6)


async def test_past_days(risk_desk: RiskDesk) -> None:
    await risk_desk.open("past", ETH10, OWES)
    found = await risk_desk.risk("past", window_days=120, confidence="0.99")
    told = found["historical"]
    lost = losses(10, 120)
    # The place is 119 * 0.01 = 1.19 from the worst.
    assert near(told["value_at_risk_usd"], lost[1] + (lost[2] - lost[1]) * Decimal("0.19"))
    assert near(told["expected_shortfall_usd"], (lost[0] + lost[1]) / 2)
    assert (told["shortfall_observations"], told["observations"], told["observations_required"]) == (2, 120, 100)
    assert near(told["worst_loss_usd"], Decimal(4_000))
    last = date.fromisoformat(told["last_day"])
    assert date.fromisoformat(told["worst_day"]) == last - timedelta(days=BAD_DAY)
    assert date.fromisoformat(told["first_day"]) == last - timedelta(days=120)
    assert (told["window_days"], told["horizon_days"], told["confidence"]) == (120, 1, "0.990000")
    assert (told["method"], told["interpolation"], told["missing"]) == ("historical_simulation", "linear", None)
    assert {each["asset"]: (each["closes"], each["closes_wanted"]) for each in told["series"]} == {
        "ETH": (121, 121),
        "USDC": (121, 121),
    }
    weekly = (await risk_desk.risk("past", window_days=100, horizon_days=7, confidence="0.95"))["historical"]
    lost = losses(10, 100, 7)
    assert near(weekly["value_at_risk_usd"], lost[4] + (lost[5] - lost[4]) * Decimal("0.95"))
    assert near(weekly["expected_shortfall_usd"], sum(lost[:5], Decimal()) / 5)


async def test_too_few_days_give_no_number(risk_desk: RiskDesk) -> None:
    await risk_desk.open("young", ("collateral", "BTC", 10**8), OWES)
    found = await risk_desk.risk("young")
    told = found["historical"]
    assert (told["observations"], told["value_at_risk_usd"], told["expected_shortfall_usd"]) == (4, None, None)
    assert "BTC has closes of 5 days" in told["missing"]
    assert found["liquidation_by_chance"]["probability"] is None
    assert found["liquidation_by_chance"]["observations"] == 4
    assert Decimal(found["health_score"]) == Decimal("3.12")
    longer = (await risk_desk.risk("past", window_days=1_000))["historical"]
    assert (longer["observations"], longer["missing"]) == (129, None)


async def test_past_crashes(risk_desk: RiskDesk) -> None:
    await risk_desk.open("crash", ETH10, OWES)
    table = {each["scenario"]: each for each in (await risk_desk.risk("crash", window_days=100))["stress"]}
    assert list(table) == [scenario.name for scenario in SCENARIOS]
    worst = table["black_thursday_2020"]
    assert (worst["from_day"], worst["to_day"], worst["measure"]) == ("2020-03-11", "2020-03-12", "close_to_close")
    assert worst["sources"][1]["publication"] == "Yahoo Finance"
    moves = {each["asset"]: each for each in worst["moves"]}
    assert (
        moves["ETH"]["before_usd"],
        moves["ETH"]["after_usd"],
        moves["ETH"]["change_percent"],
        moves["ETH"]["assumed"],
    ) == (
        "194.87",
        "112.35",
        "-42.35",
        False,
    )
    assert moves["USDC"]["assumed"]
    left = Decimal(20_000) * Decimal("112.35") / Decimal("194.87")
    assert near(worst["collateral_usd"], left)
    assert near(worst["loss_usd"], 20_000 - left)
    assert near(worst["shortfall_usd"], 15_000 - left / Decimal("1.05"))
    assert abs(Decimal(worst["health_score"]) - left * Decimal("0.83") / 15_000) < Decimal("1e-12")
    assert worst["status"] == "LIQUIDATION"
    depeg = table["usdc_2023"]
    assert (depeg["debt_usd"], depeg["loss_usd"], depeg["shortfall_usd"], depeg["status"]) == (
        "13200.00000000",
        "-1800.00000000",
        "0.00000000",
        "WARNING",
    )


async def test_time_to_liquidation_and_concentration(risk_desk: RiskDesk) -> None:
    await risk_desk.open("time", ETH10, ("collateral", "BTC", 10**7), OWES, warning_bps=20_000)
    await risk_desk.open("walk", ETH10, OWES)
    found = await risk_desk.risk("time")
    assert (found["collateral_usd"], found["debt_usd"], found["status"]) == (
        "26000.00000000",
        "15000.00000000",
        "WARNING",
    )
    assert found["concentration"]["herfindahl_index"] == 6_449
    assert found["concentration"]["shares"][1] == {
        "asset": "BTC",
        "value_usd": "6000.00000000",
        "share": "0.230769",
    }
    health = (20_000 * 0.83 + 6_000 * 0.78) / 15_000
    carry = found["liquidation_by_carry"]
    assert (carry["days"], carry["borrow_rate_percent"]) == (math.floor(math.log(health) / 0.05 * 365), "5.00")
    chance = (await risk_desk.risk("walk", window_days=120, probability_days=10))["liquidation_by_chance"]
    closes = path_of_ether()[-121:]
    sigma = statistics.stdev(math.log(after / before) for before, after in pairwise(closes))
    touch = 2 * statistics.NormalDist().cdf(-math.log(16_600 / 15_000) / (sigma * math.sqrt(10)))
    assert float(chance["daily_volatility"]) == pytest.approx(sigma, abs=1e-6)
    assert float(chance["probability"]) == pytest.approx(touch, abs=1e-6)
    assert (chance["horizon_days"], chance["observations"]) == (10, 120)


async def test_an_account_without_debt_and_one_without_anything(risk_desk: RiskDesk) -> None:
    await risk_desk.open("saver", ETH10)
    saver = await risk_desk.risk("saver", window_days=100)
    assert (saver["health_score"], saver["status"]) == (None, "HEALTHY")
    assert (saver["liquidation_by_carry"]["days"], saver["liquidation_by_carry"]["borrow_rate_percent"]) == (None, None)
    assert saver["liquidation_by_chance"]["probability"] is None
    assert {each["health_score"] for each in saver["stress"]} == {None}
    await risk_desk.open("empty")
    empty = await risk_desk.risk("empty")
    assert (empty["historical"]["value_at_risk_usd"], empty["concentration"]["shares"]) == ("0.00000000", [])
    await risk_desk.open("sunk", OWES)
    sunk = await risk_desk.risk("sunk", window_days=100)
    assert (sunk["health_score"], sunk["status"]) == ("0.000000000000000000", "LIQUIDATION")
    assert sunk["liquidation_by_carry"]["days"] == 0
    assert sunk["liquidation_by_chance"]["probability"] == "1.000000"
    assert sunk["stress"][0]["shortfall_usd"] == "15000.00000000"


async def test_who_may_ask_and_what_is_refused(risk_desk: RiskDesk) -> None:
    await risk_desk.open("own", ETH10)
    await risk_desk.open("odd", ("collateral", "DAI", 10**18))
    bound = await risk_desk.service.key_for(user_id="own")
    assert ok(await bound.get("margin/accounts/own/risk", window_days=100))["user_id"] == "own"
    refused(await bound.get("margin/accounts/past/risk"), 403, "account_not_yours")
    reader = await risk_desk.service.key_for(scopes=(Scope.LEDGER_READ,))
    refused(await reader.get("margin/accounts/own/risk"), 403, "scope_missing")
    refused(await risk_desk.service.get("margin/accounts/nobody/risk"), 404, "margin_account_unknown")
    refused(await risk_desk.service.get("margin/accounts/odd/risk"), 409, "price_unusable")
    wrong: Sequence[tuple[str, Any, str]] = (
        ("window_days", 29, "input_invalid"),
        ("window_days", 1_096, "input_invalid"),
        ("horizon_days", 0, "input_invalid"),
        ("probability_days", 366, "input_invalid"),
        ("confidence", "1", "confidence_invalid"),
        ("confidence", "0.4999", "confidence_invalid"),
        ("confidence", "0.9999999", "confidence_invalid"),
        ("confidence", "-0.9", "confidence_invalid"),
        ("window", 100, "unknown_parameter"),
    )
    for name, value, code in wrong:
        refused(await risk_desk.service.get("margin/accounts/own/risk", **{name: value}), 422, code, name)
    short = await risk_desk.service.get("margin/accounts/own/risk", window_days=99)
    refused(short, 422, "window_too_short", "window_days")


async def test_another_tenant_has_no_such_account(risk_desk: RiskDesk) -> None:
    tenant = new_id()
    async with transaction(risk_desk.app_engine) as connection:
        assert await create_tenant(connection, new_tenant=tenant, name="other")
    other = await Caller(risk_desk.service.app, tenant, risk_desk.app_engine, None).key_for()
    await risk_desk.open("alone", ETH10)
    refused(await other.get("margin/accounts/alone/risk"), 404, "margin_account_unknown")


async def test_nothing_is_written(risk_desk: RiskDesk, risk_url: str) -> None:
    await risk_desk.open("still", ETH10, OWES)
    counts = " UNION ALL ".join(
        f"SELECT '{table}', count(*) FROM {table}"
        for table in (
            "margin_accounts",
            "margin_health_snapshots",
            "margin_events",
            "outbox",
            "audit_log",
            "price_ticks",
        )
    )

    def look() -> list[Any]:
        with psycopg.connect(risk_url) as connection:
            version = "SELECT 'version', version FROM margin_accounts WHERE user_id = 'still'"
            return connection.execute(f"{counts} UNION ALL {version}").fetchall()

    before = look()
    await risk_desk.risk("still", window_days=100)
    assert look() == before
