"""The book's steps on a real database: who is told what, once, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.book.columns import EXACT_BELOW
from activities.book.messages import RevalueGroup
from activities.book.steps import BOOK_GROUPS, BookActivities, Ground
from db.doorbell import Doorbell
from db.engine import transaction
from db.ids import new_id
from db.margin import book as writing
from db.margin.book import Fence, Superseded
from db.margin.tables import SHARDS
from kit.clock import now
from tests.activities.margin import Checks
from tests.booking import Booking, booking
from tests.polling import eventually
from tools.local.postgres import EmbeddedPostgres

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
async def desk(postgres: EmbeddedPostgres) -> AsyncIterator[Booking]:
    async with booking(postgres) as made:
        yield made


async def test_who_cannot_be_valued_is_counted_and_told_when_it_can(desk: Booking) -> None:
    await desk.account("wide", {"ETH": "1"} | dict.fromkeys(("BTC", "DAI", "USDT"), "0.000001"), {"USDC": "2000"})
    await desk.account("huge", {"DAI": str(10**15)}, {"USDC": "1", "ETH": str(10**15)})
    await desk.account("fine", {"ETH": "1"}, {"USDC": "2000"})
    await desk.account("free", {"DAI": "1"}, {})
    await desk.sql("UPDATE prices SET as_of = clock_timestamp() - interval '25 hours' WHERE asset = 'DAI'")
    found = await desk.revalue()
    assert (sum(each.unvalued for each in found), sum(each.transitions for each in found)) == (3, 1)
    assert await desk.told() == {"fine": 1, "free": 0, "huge": 0, "wide": 0}
    await desk.sql("UPDATE prices SET as_of = clock_timestamp() WHERE asset = 'DAI'")
    found = await desk.revalue()
    assert (sum(each.unvalued for each in found), sum(each.transitions for each in found)) == (0, 2)
    assert await desk.told() == {"fine": 1, "free": 0, "huge": 4, "wide": 1}


async def test_the_right_accounts_and_only_those_are_told(desk: Booking) -> None:
    # Health is 0.83 · ETH / debt: 2.49, 1.66, 1.245, 1.107, 1.037 and 0.996.
    debts = {"safe": "1000", "fine": "1500", "warned": "2000", "called": "2250", "near": "2400", "due": "2500"}
    for user, debt in debts.items():
        await desk.account(user, {"ETH": "1"}, {"USDC": debt})
    await desk.account("no debt", {"ETH": "1"}, {})
    first = await desk.revalue()
    assert sum(each.accounts for each in first) == 7
    assert sum(each.transitions for each in first) == 4
    assert await desk.told() == {"safe": 0, "fine": 0, "warned": 1, "called": 2, "near": 3, "due": 4, "no debt": 0}
    assert sorted(await desk.events()) == [
        ("called", "margin_call"),
        ("due", "liquidation_due"),
        ("near", "liquidation_imminent"),
        ("warned", "margin_warning"),
    ]
    again = await desk.revalue()
    assert sum(each.candidates for each in again) == 0, "everybody is where they were told to be"
    before = await desk.sql("SELECT user_id, version FROM margin_accounts ORDER BY user_id")
    await desk.price(ETH="2700")
    moved = await desk.revalue()
    assert sum(each.transitions for each in moved) == 4
    assert await desk.told() == {"safe": 0, "fine": 1, "warned": 2, "called": 4, "near": 4, "due": 4, "no debt": 0}
    after = await desk.sql("SELECT user_id, version FROM margin_accounts ORDER BY user_id")
    touched = {new.user_id for old, new in zip(before, after, strict=True) if old.version != new.version}
    assert touched == {"fine", "warned", "called", "near"}
    audits = await desk.sql("SELECT details FROM audit_log WHERE action = 'margin.revalued' ORDER BY audit_id")
    assert sum(sum(row.details["told"].values()) for row in audits) == 8
    assert (await desk.audit()).disagreeing == 0
    # Keys that are stated and not enforced.
    orphans = await desk.sql(
        "SELECT FROM margin_health_snapshots s LEFT JOIN margin_accounts a USING (tenant_id, user_id)"
        " LEFT JOIN margin_parameter_versions v ON v.version = s.parameter_version"
        " LEFT JOIN margin_events e USING (tenant_id, snapshot_id)"
        " WHERE a.user_id IS NULL OR v.version IS NULL OR e.event_id IS NULL"
    )
    assert not orphans
    assert len(await desk.events()) == (await desk.sql("SELECT count(*) AS n FROM margin_events"))[0].n == 8


async def test_every_tenant_has_its_own_rows(desk: Booking) -> None:
    from db.identity import create_tenant

    other = new_id()
    async with transaction(desk.tenants) as connection:
        await create_tenant(connection, new_tenant=other, name="other")
    await desk.account("same", {"ETH": "1"}, {"USDC": "2000"})
    await desk.account("same", {"ETH": "1"}, {"USDC": "2300"}, tenant=other)
    await desk.revalue()
    rows = await desk.sql(
        "SELECT tenant_id, event_type FROM margin_events JOIN margin_health_snapshots USING (tenant_id, snapshot_id)"
    )
    assert {row.tenant_id: row.event_type for row in rows} == {desk.tenant: "margin_warning", other: "margin_call"}
    rows = await desk.sql("SELECT tenant_id FROM audit_log WHERE action = 'margin.revalued'")
    assert {row.tenant_id for row in rows} == {desk.tenant, other}


async def test_what_changes_between_two_ticks_is_followed(desk: Booking) -> None:
    await desk.account("first", {"ETH": "1"}, {"USDC": "1000"})
    await desk.revalue()
    await desk.account("second", {"ETH": "1"}, {"USDC": "2000"})
    await desk.sql("UPDATE margin_positions SET amount_minor = 2400000000 WHERE side = 'borrow'")
    await desk.sql("UPDATE margin_accounts SET warning_bps = 40000 WHERE user_id = 'second'")
    await desk.revalue()
    assert await desk.told() == {"first": 3, "second": 3}
    await desk.sql("DELETE FROM margin_positions WHERE side = 'borrow'")
    await desk.revalue()
    assert await desk.told() == {"first": 0, "second": 0}
    assert (await desk.events())[-1][1] == "margin_recovered"


async def test_what_began_before_a_read_and_commits_after_it_is_not_missed(desk: Booking) -> None:
    await desk.account("first", {"ETH": "1"}, {"USDC": "1000"})
    async with transaction(desk.engine) as slow:
        await desk.open(slow, "late", {"ETH": "1"}, {"USDC": "2000"})
        await slow.execute(text("UPDATE margin_positions SET amount_minor = 2000000000 WHERE side = 'borrow'"))
        ends = await desk.revalue()
        assert sum(each.accounts for each in ends) == 1
        assert all(each.due_at is not None for each in ends), "it is looked at again, tick or not"
        await desk.account("later", {"ETH": "1"}, {"USDC": "2000"})
        assert sum(each.accounts for each in await desk.revalue()) == 2
    # Its transaction's number is below those that the last read saw.
    assert sum(each.accounts for each in await desk.revalue()) == 3
    assert await desk.told() == {"first": 1, "late": 1, "later": 1}


async def test_a_check_with_older_prices_that_commits_late_is_looked_at_again(desk: Booking) -> None:
    """It locked its account, read the prices, and commits after the book is done with the newer ones."""
    await desk.account("user", {"ETH": "1"}, {"USDC": "1000"})
    await desk.revalue()
    tick = await desk.price(ETH="2400")
    revaluing = None
    async with transaction(desk.engine) as check:
        await check.execute(text("SELECT FROM margin_accounts FOR UPDATE"))
        await check.execute(text("UPDATE margin_positions SET amount_minor = 1500000000 WHERE side = 'borrow'"))
        revaluing = asyncio.create_task(desk.revalue(desk.process(groups=1)))

        async def begun() -> bool:
            return bool((await desk.sql("SELECT min(tick) AS tick FROM margin_book"))[0].tick == tick)

        await eventually(begun)
    [end] = await revaluing
    # 0.83 · 2,400 over 1,500 is 1.328.
    assert (end.transitions, await desk.told()) == (1, {"user": 1})


class Overtaken(BookActivities):
    """A process that finds its prices overtaken as soon as it has read them, ``times`` times."""

    overtake: Callable[[], Awaitable[object]]
    times = 0

    async def ground(self) -> Ground:
        found = await super().ground()
        if self.times:
            self.times -= 1
            await self.overtake()
        return found


async def test_a_check_with_newer_prices_is_not_undone_by_a_round_with_older_ones(desk: Booking) -> None:
    """The account is read again in the middle of the round; only the next round knows as much as its check did."""
    await desk.account("alice", {"ETH": "1"}, {"USDC": "1500"})
    book = Overtaken(desk.engine, Doorbell(desk.engine), groups=1)
    await desk.revalue(book)
    checks = Checks(desk.tenants, desk.tenant)

    async def fall() -> None:
        await desk.price(ETH="2500")
        assert (await checks.check(stored=True)).event_type == "margin_warning"

    book.overtake, book.times = fall, 1
    shards = tuple(range(SHARDS))
    overtaken = await ActivityEnvironment().run(book.revalue, RevalueGroup(shards=shards))
    assert await desk.told() == {"alice": 1}, "at the older prices there was nothing to warn of"
    assert overtaken.due_at is not None, "it is looked at again, tick or not"
    [end] = await desk.revalue(book)
    assert (end.tick > overtaken.tick, end.transitions) == (True, 0)
    assert await desk.events() == [("alice", "margin_warning")]


async def test_what_is_found_in_a_later_turn_is_dated_later(desk: Booking) -> None:
    """An account that was looked at meanwhile has its snapshots in the order in which they were made."""
    await desk.account("alice", {"ETH": "1"}, {"USDC": "1500"})
    book = Overtaken(desk.engine, Doorbell(desk.engine), groups=1)
    await desk.revalue(book)
    checks = Checks(desk.tenants, desk.tenant)

    async def change() -> None:
        await checks.check(stored=True)
        await desk.sql("UPDATE margin_positions SET amount_minor = 2000000000 WHERE side = 'borrow'")

    book.overtake, book.times = change, 1
    [end] = [await ActivityEnvironment().run(book.revalue, RevalueGroup(shards=tuple(range(SHARDS))))]
    assert end.transitions == 1
    newest, *before = await checks.snapshots()
    assert (newest.cause, [each.cause for each in before]) == ("tick", ["check"])


async def test_a_restart_reads_everything(desk: Booking) -> None:
    for number in range(50):
        await desk.account(f"user \\ {number} \N{OGHAM LETTER BEITH}", {"ETH": "1", "BTC": "0.1"}, {"USDC": "4000"})
    await desk.revalue()
    events = await desk.events()
    await desk.price(ETH="2000")
    other = desk.process(groups=3, batch=7)
    await desk.revalue(other)
    found = await desk.events()
    # 0.83 · 2,000 + 0.78 · 6,000 = 6,340 over 4,000: everybody is as healthy as to be told nothing more.
    assert (found, set((await desk.told()).values())) == (events, {0})
    await desk.price(ETH="1")
    await desk.revalue(other)
    assert set((await desk.told()).values()) == {2}
    assert len(await desk.events()) == 50


async def test_accounts_of_any_width_and_size(desk: Booking) -> None:
    many = {"ETH": "1", "BTC": "0.01", "USDC": "5", "USDT": "5", "DAI": "5"}
    await desk.account("wide", many, {"ETH": "0.9", "BTC": "0.01", "USDC": "5", "USDT": "5", "DAI": "5"})
    await desk.account("dust", {"ETH": "0.000000000000000001"}, {"DAI": "0.000000000000000001"})
    huge = str(EXACT_BELOW // 10**18 * 3)
    await desk.account("huge", {"ETH": huge}, {"DAI": f"{int(huge) * 2_000}"})
    await desk.account("large", {"ETH": "1000000000000"}, {"DAI": "2000000000000000"})
    await desk.revalue()
    # A wei of ETH is worth nothing in 1e-8 USD, a wei of DAI one of them: rounded against the user.
    told = {"wide": 4, "dust": 4, "huge": 1, "large": 1}
    assert await desk.told() == told
    [row] = await desk.sql("SELECT health_score FROM margin_accounts WHERE user_id = 'huge'")
    assert str(row.health_score).startswith("1.245")
    again = await desk.revalue()
    assert sum(each.transitions for each in again) == 0
    await desk.price(ETH="2000")
    await desk.revalue()
    assert await desk.told() == told | {"huge": 4, "large": 4}
    assert (await desk.audit()).disagreeing == 0


async def test_a_price_that_is_not_confirmed_liquidates_nobody(desk: Booking) -> None:
    await desk.account("near", {"ETH": "1"}, {"USDC": "2000"})
    await desk.revalue()
    await desk.price(ETH="2000", confirmed=False)
    ends = await desk.revalue()
    assert await desk.told() == {"near": 3}
    assert [each.due_at for each in ends if each.due_at is not None] == []
    again = await desk.revalue()
    assert [each.due_at for each in again if each.due_at is not None], "it is looked at again without a tick"
    assert (await desk.audit()).disagreeing == 0
    await desk.price(ETH="2000")
    await desk.revalue()
    assert await desk.told() == {"near": 4}
    assert [kind for _, kind in await desk.events()] == ["margin_warning", "liquidation_imminent", "liquidation_due"]


async def test_who_is_held_back_by_a_cooldown_is_told_when_it_ends(desk: Booking) -> None:
    soon = now() - timedelta(minutes=30) + timedelta(seconds=1)
    await desk.account("user", {"ETH": "1"}, {"USDC": "2000"}, warning_told_at=soon)
    ends = await desk.revalue()
    assert await desk.told() == {"user": 0}
    [due] = [each.due_at for each in ends if each.due_at is not None]
    assert due == soon + timedelta(minutes=30)
    assert (await desk.audit()).disagreeing == 0
    rows = await desk.sql("SELECT count(*) AS n FROM margin_book WHERE due_at IS NOT NULL")
    assert rows[0].n == SHARDS // BOOK_GROUPS
    assert sum(each.candidates for each in await desk.revalue()) == 0 or now() >= due
    await asyncio.sleep(max(0.0, (due - now()).total_seconds()))
    ends = await desk.revalue()
    assert (await desk.told(), [each.due_at for each in ends]) == ({"user": 1}, [None] * BOOK_GROUPS)


async def test_an_older_tick_writes_nothing_after_a_newer_one(desk: Booking) -> None:
    await desk.account("user", {"ETH": "1"}, {"USDC": "2000"})
    older, shards = await desk.price(ETH="1900"), tuple(range(64))
    async with transaction(desk.engine) as connection:
        await writing.begin(connection, Fence(shards, older, ALWAYS))
    newer = await desk.price(ETH="3000")
    ends = await desk.revalue()
    assert {each.tick for each in ends} == {newer}
    assert await desk.told() == {"user": 1}
    with pytest.raises(Superseded):
        async with transaction(desk.engine) as connection:
            await writing.begin(connection, Fence(shards, older, ALWAYS))
    with pytest.raises(Superseded):
        async with transaction(desk.engine) as connection:
            await writing.write(connection, Fence(shards, older, ALWAYS), [], at=now(), workflow_id=None, details={})


async def test_a_step_of_an_older_tick_leaves_it_to_the_newer_one(desk: Booking) -> None:
    """A process reads its prices and stalls; meanwhile another one is done with a newer tick."""
    await desk.account("user", {"ETH": "1"}, {"USDC": "2000"})
    stale = desk.process(groups=1)
    real = stale.ground
    ground = await real()

    async def stalled() -> object:
        return ground

    stale.ground = stalled  # type: ignore[method-assign,assignment]
    await desk.price(ETH="1000")
    await desk.revalue()
    [end] = await desk.revalue(stale)
    assert end.superseded
    assert await desk.told() == {"user": 4}
    assert len(await desk.events()) == 1


async def test_an_account_that_changes_between_read_and_write_is_decided_again(desk: Booking) -> None:
    await desk.account("user", {"ETH": "1"}, {"USDC": "2000"})
    process = desk.process(groups=1)
    real = process.ground

    async def meanwhile() -> object:
        """After the accounts are read, and before anything is written."""
        await desk.sql("UPDATE margin_positions SET amount_minor = 2400000000 WHERE side = 'borrow'")
        process.ground = real  # type: ignore[method-assign]
        return await real()

    plan = await ActivityEnvironment().run(process.plan)
    process.ground = meanwhile  # type: ignore[method-assign,assignment]
    end = await ActivityEnvironment().run(process.revalue, RevalueGroup(shards=plan.groups[0]))
    assert (end.left, end.transitions) == (1, 1)
    assert await desk.told() == {"user": 3}
    assert await desk.events() == [("user", "liquidation_imminent")]


async def test_two_processes_at_once_tell_once(desk: Booking) -> None:
    for number in range(300):
        await desk.account(f"user-{number}", {"ETH": "1"}, {"USDC": str(1_700 + number)})
    one, other = desk.process(batch=20), desk.process(batch=20, groups=1)
    await asyncio.gather(desk.revalue(one), desk.revalue(other))
    await desk.price(ETH="2500")
    await asyncio.gather(desk.revalue(one), desk.revalue(other))
    events = await desk.events()
    assert len(events) == len(set(events)), "nobody is told the same twice"
    assert (await desk.audit()).disagreeing == 0


async def test_the_auditor_finds_what_was_told_wrong(desk: Booking) -> None:
    for user, debt in {"right": "2000", "wrong": "2000", "worse": "2400"}.items():
        await desk.account(user, {"ETH": "1"}, {"USDC": debt})
    await desk.revalue()
    assert await desk.audit(page=1) == await desk.audit()
    await desk.sql("UPDATE margin_accounts SET told_level = 3 WHERE user_id = 'wrong'")
    await desk.sql("UPDATE margin_accounts SET told_level = 0, imminent_told_at = NULL WHERE user_id = 'worse'")
    found = await desk.audit()
    assert (found.accounts, found.disagreeing) == (3, 2)
    assert (await desk.audit()).disagreeing == 2
    rows = await desk.sql(
        "SELECT f.user_id, told_level, strict_level, o.type, o.data ->> 'told_level' AS said"
        " FROM margin_audit_findings f JOIN outbox o ON (o.tenant_id, o.event_id) = (f.tenant_id, f.finding_id)"
        " ORDER BY f.user_id"
    )
    assert [tuple(row) for row in rows] == [
        ("worse", 0, 3, "margin.audit_disagreed", "HEALTHY"),
        ("wrong", 3, 1, "margin.audit_disagreed", "IMMINENT"),
    ], "each is told once, however often it is found"
    await desk.price(ETH="2999")
    assert (await desk.audit()).disagreeing == 0, "a tick is under way"
    await desk.revalue()
    assert (await desk.audit()).disagreeing == 0, "the book follows what was written, and puts it right"
    assert await desk.told() == {"right": 1, "wrong": 1, "worse": 3}
