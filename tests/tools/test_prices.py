"""`python -m tools prices`, and a worker whose configuration of prices is at fault."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.vendors.sources import price_desk
from db import prices as db_prices
from db.engine import Role, create_engine, transaction
from kit.build import ROOT
from kit.pricing import PricesUnusable, manual_only, read_prices, secret
from kit.settings import WorkerSettings
from outside import create_price_desk
from tests.domain.prices import dollars
from tests.pricing import PriceSteps, Told, own_database
from tools import prices
from tools.local.postgres import EmbeddedPostgres

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


def run(*command: str, status: int = 0, **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE", "PRICES", "HOLD"))}
    done = subprocess.run(
        [sys.executable, "-m", "tools", "prices", *command],
        cwd=ROOT,
        env={**plain, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_file_to_start_with_and_prices_set_in_it(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    assert prices.start_manual(file)
    assert not prices.start_manual(file)
    assert prices.manual(file) == prices.STARTING
    assert prices.set_manual(file, ["ETH=2345.670", "wst.ETH=1.5"], AT) == {"ETH": "2345.67", "wst.ETH": "1.5"}
    assert prices.set_manual(file, ["BTC=90001"], AT) == {"BTC": "90001"}
    found = prices.manual(file)
    assert found["ETH"] == {"price": "2345.67", "at": AT}
    assert found["wst.ETH"] == {"price": "1.5", "at": AT}
    assert found["USDC"] == "1"
    assert [each.name for each in tmp_path.iterdir()] == ["prices.toml"], "nothing of the writing is left"
    for wrong in ("ETH", "ETH=", "ETH=-1", "ETH=nan", "=1", "E TH=1", "ETH=1=2"):
        with pytest.raises(prices.PricesError, match="is no ASSET=PRICE"):
            prices.set_manual(file, [wrong], AT)
    assert prices.manual(file) == found


async def test_what_is_set_is_what_the_source_reads(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    prices.set_manual(file, ["ETH=2345.67"], datetime.now(UTC))
    desk = price_desk(manual_only(file))
    [eth] = await desk.sources["manual"].read()
    assert (eth.price, eth.fault) == (dollars("2345.67"), None)
    assert desk.policy("ETH").quorum == 1


async def test_the_commands_as_they_are_typed(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    file, past = tmp_path / "prices.toml", tmp_path / "past.csv"
    past.write_text("asset,at,price\nETH,2026-01-05T00:00:00Z,3000.5\nETH,2026-02-05T01:00:00+01:00,3100\n")
    async with own_database(postgres) as url:
        engine = create_engine(url, Role.ENGINE, pool_size=2)
        await PriceSteps(engine, Told("a", {"ETH": "100"}), Told("b", {"ETH": "100"})).refresh()
        home = str(tmp_path / "home")

        async def typed(*command: str, status: int = 0) -> str:
            given = {"DATABASE_URL": url, "PRICES_MANUAL_FILE": str(file), "HOLDFAST_HOME": home}
            return await asyncio.to_thread(run, *command, status=status, **given)

        assert "ETH is 2345.67" in await typed("set", "ETH=2345.67")
        shown = await typed("show")
        assert "prices.toml: ETH = 2345.67" in shown
        assert "good, confirmed" in shown
        assert "2 prices of the past are new" in await typed("import", str(past))
        assert "BTC has no price" in await typed("accept", "BTC", status=1)
        assert await asyncio.to_thread(prices.accept, url, "ETH")
        assert await asyncio.to_thread(prices.import_csv, url, past) == 0
        for content, why in (
            ("asset,at,price\nETH,2026-01-05,3000.5\n", "line 2: '2026-01-05' has no offset"),
            ("asset,at,price\nETH,soon,3000.5\n", "line 2: 'soon' is no ISO 8601 instant"),
            ("asset,at,price\nETH,2026-01-05T00:00:00Z,-1\n", "line 2: 'ETH=-1' is no ASSET=PRICE"),
            ("asset,price\nETH,1\n", "has no column at"),
            ("asset,at,price\nGOLD,2026-01-05T00:00:00Z,1\n", "assets that nobody knows: GOLD"),
        ):
            past.write_text(content)
            with pytest.raises(prices.PricesError, match=why):
                await asyncio.to_thread(prices.import_csv, url, past)
        day = timedelta(days=1)
        async with transaction(engine) as connection:
            since, until = datetime(2026, 1, 4, tzinfo=UTC), datetime(2026, 2, 6, tzinfo=UTC)
            found = await db_prices.buckets(connection, "ETH", since=since, until=until, width=day)
        await engine.dispose()
    assert [(each.close, each.ticks) for each in found if each.ticks] == [(dollars("3000.5"), 1), (dollars("3100"), 1)]
    assert len(found) == 32, "the days between stand still, and before the first there is none"


WHOLE = """
[sources.gecko]
kind = "coingecko"
key_env = "GECKO_KEY"
feeds = {ETH = "ethereum", BTC = {id = "bitcoin", max_age_seconds = 90}}
[sources.chain]
kind = "chainlink"
url_env = "RPC_URL"
[sources.chain.feeds.ETH]
address = "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419"
decimals = 8
heartbeat_seconds = 3600
[sources.hermes]
kind = "pyth"
feeds = {ETH = "0xff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"}
[sources.kraken]
kind = "exchange"
exchange = "kraken"
feeds = {ETH = "ETH/USD"}
[sources.desk]
kind = "file"
path = "prices.toml"
feeds = {DAI = "DAI"}
[defaults]
band_bps = 50
[assets.ETH]
quorum = 3
min = "10"
max = 1e6
"""


async def test_every_kind_of_source_from_one_file(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(WHOLE.replace("1e6", "1000000.5"))
    desk = price_desk(read_prices(file), {"GECKO_KEY": "CG-x", "RPC_URL": "http://127.0.0.1:1"})
    assert sorted(desk.sources) == ["chain", "desk", "gecko", "hermes", "kraken"]
    assert desk.expected()["ETH"] == ["chain", "gecko", "hermes", "kraken"]
    eth, btc = desk.policy("ETH"), desk.policy("BTC")
    assert (eth.quorum, eth.band_bps, eth.min_price, eth.max_price) == (3, 50, dollars("10"), dollars("1000000.5"))
    assert (btc.quorum, btc.band_bps) == (1, 50)
    await desk.close()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('kind = "coingecko"', 'kind = "coingeko"', "sources.gecko"),
        ("decimals = 8", "", "sources.chain.feeds.ETH.decimals: Field required"),
        ("heartbeat_seconds = 3600", "", "sources.chain.feeds.ETH.heartbeat_seconds: Field required"),
        ("0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419", "0x5f", "sources.chain.feeds.ETH.address"),
        ("max = 1e6", "max = -1", "assets.ETH.max: must be dollars"),
        ("quorum = 3", "quorum = 9", "assets.ETH.quorum is 9, and 4 sources have it"),
        ("quorum = 3", "quorums = 3", "assets.ETH.quorums: Extra inputs"),
        ("[defaults]", "[default]", "default: Extra inputs"),
        ('url_env = "RPC_URL"', "", "sources.chain: names its node by url"),
        ("[sources.gecko]", "[sources.gecko", "is no TOML"),
        ('exchange = "kraken"', 'exchange = "krakn"', "sources.kraken.exchange: ccxt"),
        ("", "", "sources.gecko.key_env names the environment variable GECKO_KEY, which is not set"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(WHOLE.replace(old, new).replace("1e6", "1000") if old else WHOLE.replace("1e6", "1000"))
    environment = {"RPC_URL": "http://127.0.0.1:1"} | ({"GECKO_KEY": "x"} if old else {})
    with pytest.raises(PricesUnusable) as caught:
        price_desk(read_prices(file), environment)
    assert why in str(caught.value)


def test_a_worker_says_which_setting_is_at_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    required: Any = {
        "database_url": "postgresql://nowhere",
        "temporal_address": "nowhere:1",
        "seal_key_file": tmp_path / "key",
        "checkpoint_dir": tmp_path,
    }
    with pytest.raises(SystemExit) as ended:
        create_price_desk(WorkerSettings(**required, prices_file=tmp_path / "none.toml"))
    assert ended.value.code == 2
    assert f"configuration: PRICES_FILE {tmp_path}/none.toml: " in capsys.readouterr().err
    assert create_price_desk(WorkerSettings(**required)).sources == {}
    only = create_price_desk(WorkerSettings(**required, prices_manual_file=tmp_path / "prices.toml"))
    assert list(only.sources) == ["manual"]
    assert secret(None, "x") is None


def test_no_vendors_library_loads_where_none_is_configured() -> None:
    """Neither in the API, nor in a worker with a file alone."""
    program = (
        "import sys, api.main, outside, worker; from pathlib import Path; from kit.pricing import manual_only;"
        "outside.price_desk(manual_only(Path('nowhere')));"
        "print([m for m in ('ccxt', 'web3', 'sendgrid', 'twilio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
