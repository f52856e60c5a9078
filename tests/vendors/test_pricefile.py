"""The operators' own file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from activities.vendors.guard import Limits
from activities.vendors.pricefile import FilePrices
from kit.clock import now
from kit.pricing import ManualFile
from tests.domain.prices import dollars


def source(path: Path, **changes: Any) -> FilePrices:
    return FilePrices("manual", ManualFile(kind="file", path=path, **changes), Limits())


async def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml, json = tmp_path / "prices.toml", tmp_path / "prices.json"
    toml.write_text('ETH = "2345.67"\nBTC = 60000.123456789\nDAI = {price = "0.9999", at = 2026-11-26T10:00:00Z}\n')
    json.write_text(
        '{"ETH": "2345.67", "BTC": 60000.123456789, "DAI": {"price": "0.9999", "at": "2026-11-26T10:00:00+00:00"}}'
    )
    for file in (toml, json):
        found = {each.asset: each for each in await source(file).read()}
        assert {asset: each.price for asset, each in found.items()} == {
            "ETH": dollars("2345.67"),
            "BTC": dollars("60000.123456789"),
            "DAI": dollars("0.9999"),
        }
        assert found["DAI"].observed_at == datetime(2026, 11, 26, 10, tzinfo=UTC)
        assert found["ETH"].observed_at is not None
        assert (now() - found["ETH"].observed_at).total_seconds() < 10, "it stands until somebody changes it"
        assert found["ETH"].feed == "file:manual:ETH"


async def test_it_is_read_again_each_time(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('ETH = "1"')
    manual = source(file)
    assert [each.price for each in await manual.read()] == [dollars("1")]
    file.write_text('ETH = "2"\nBTC = "3"')
    assert [each.price for each in await manual.read()] == [dollars("2"), dollars("3")]
    assert manual.assets == ("ETH", "BTC")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("ETH = true", "no price"),
        ("ETH = -1", "no price"),
        ("ETH = [1]", "no price"),
        ('ETH = {price = "1", at = 2026-11-26T10:00:00}', "no instant"),
        ("ETH = nan", "no price"),
        ('ETH = {price = "1", at = 0001-01-01T00:00:00+14:00}', "no instant"),
        ("ETH = 1e99999999999999999999", "the file is not readable"),
        ("ETH = ", "the file is not readable"),
    ],
)
async def test_an_entry_at_fault_is_a_reason(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(content)
    found = await source(file, feeds={"ETH": {"id": "ETH"}}).read()
    assert [(each.fault or "").startswith(why) for each in found] == [True], found


async def test_a_file_that_is_missing_or_huge(tmp_path: Path) -> None:
    feeds: Any = {"ETH": {"id": "ETH"}}
    [missing] = await source(tmp_path / "nowhere.toml", feeds=feeds).read()
    assert (missing.fault or "").startswith("the file cannot be read: No such file")
    huge = tmp_path / "huge.toml"
    huge.write_text("#" * 2_000)
    [found] = await source(huge, feeds=feeds, max_body_bytes=1_000).read()
    assert found.fault == "the file has more than 1000 bytes"
    assert list(await source(tmp_path / "nowhere.toml").read()) == []
    unreadable = tmp_path / "unreadable.toml"
    unreadable.write_text("ETH = 1e99999999999999999999")
    assert source(unreadable).assets == (), "a worker starts all the same"
