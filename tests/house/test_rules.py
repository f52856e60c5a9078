"""The rules of the house hold, and each check can fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house import rules
from tests.house.source import ROOMS, ROOT, Module, files, in_rooms, modules, parse

OURS = (*ROOMS, *rules.ROOT_MODULES)
Rule = Callable[[Module], Iterator[str]]

_CLOCK = "from datetime import datetime\nat = datetime.now()"
_TEMPORAL = "from temporalio import workflow\n"
_LIMITS = "start_to_close_timeout=a, schedule_to_close_timeout=b, retry_policy=c"

#: Rule, the rooms that it binds, and modules that break it.
BOUND: list[tuple[Rule, tuple[str, ...], tuple[Module, ...]]] = [
    (
        rules.small,
        (*OURS, "tests"),
        (parse("db/long.py", "x = 1\n" * 401), parse("db/long.py", "def f():\n" + "    x = 1\n" * 70)),
    ),
    (rules.not_empty, (*OURS, "tests"), (parse("db/nothing.py", "\n"), parse("db/nothing.py", '"""Something."""\n'))),
    (
        rules.pure,
        ("domain", "workflows"),
        (
            parse("domain/x.py", _CLOCK),
            parse("domain/x.py", "import datetime as dt\nat = dt.datetime.now(dt.UTC)"),
            parse("domain/x.py", "from uuid import uuid4 as fresh\nx = fresh()"),
            parse("domain/x.py", "from time import monotonic"),
            parse("domain/x.py", "import random"),
            parse("workflows/x.py", "import os\nx = os.environ['A']"),
        ),
    ),
    (rules.timers_are_named, ("workflows",), (parse("workflows/x.py", "import asyncio\nasyncio.sleep(1)"),)),
    (
        rules.waits_can_be_ended,
        OURS,
        (
            parse("db/x.py", "import asyncio\nasync def f(e):\n    await asyncio.wait_for(e.wait(), 1)"),
            parse("db/x.py", "from asyncio import wait_for as wait\nwait(x, 1)"),
        ),
    ),
    (
        rules.exact,
        ("domain", "db", "activities"),
        (
            parse("domain/x.py", "fee = 0.1"),
            parse("domain/x.py", "fee = float(text)"),
            parse("db/ledger/x.py", "fee = amount / 10_000"),
            parse("domain/margin/risk/chances.py", "from domain.fixed import value_floor\nhalf = 0.5"),
        ),
    ),
    (
        rules.commits_in_one_place,
        OURS,
        (
            parse("api/x.py", "async def f(c):\n    await c.commit()"),
            parse("api/x.py", "async def f(self):\n    self._engine.begin()"),
            parse("db/x.py", "async def f(c):\n    await c.execute(text('COMMIT;'))"),
        ),
    ),
    (
        rules.transactions_are_listed,
        OURS,
        (parse("db/x.py", "from db.engine import transaction as t\nasync def f(e):\n    async with t(e): ..."),),
    ),
    (
        rules.engine_role_is_listed,
        OURS,
        (
            parse("api/x.py", "engine = create_engine(url, Role.ENGINE)"),
            parse("api/x.py", "engine = create_engine(url, Role('holdfast_engine'))"),
        ),
    ),
    (
        rules.waits_have_limits,
        ("workflows",),
        (
            parse("workflows/x.py", f"{_TEMPORAL}workflow.execute_activity(f, summary='s')"),
            parse("workflows/x.py", f"{_TEMPORAL}workflow.execute_local_activity_method(f, {_LIMITS})"),
            parse("workflows/x.py", f"{_TEMPORAL}workflow.start_activity(f, summary='s', **limits)"),
            parse("workflows/x.py", f"{_TEMPORAL}workflow.wait_condition(f, timeout=1)"),
            parse("workflows/x.py", f"{_TEMPORAL}workflow.execute_child_workflow(f)"),
            parse("workflows/x.py", "from temporalio.workflow import sleep\nsleep(1)"),
        ),
    ),
    (rules.starts_are_told, OURS, (parse("api/x.py", "self._client.start_workflow(f, id='escrow:1')"),)),
    (rules.domain_stands_alone, ("domain",), (parse("domain/x.py", "import numpy"), parse("domain/x.py", "import db"))),
    (rules.workflows_know_temporal_alone, ("workflows",), (parse("workflows/x.py", "from pydantic import Field"),)),
    (
        rules.vendors_stay_outside,
        OURS,
        (parse("api/x.py", "from activities.vendors import mail"), parse("api/x.py", "from activities import vendors")),
    ),
    (rules.root_stays_on_top, OURS, (parse("api/x.py", "import worker"),)),
    (rules.tests_stay_outside, OURS, (parse("tools/x.py", "from tests.desk import Desk"),)),
    (rules.written_in_full, (*OURS, "tests"), (parse("db/x.py", "from . import engine"),)),
    (rules.settings_are_read_on_top, OURS, (parse("db/x.py", "from kit.settings import ApiSettings"),)),
]


@pytest.mark.parametrize(("rule", "rooms"), [(rule, rooms) for rule, rooms, _ in BOUND])
def test_the_rule_holds(rule: Rule, rooms: tuple[str, ...]) -> None:
    broken = [fault for module in in_rooms(*rooms) for fault in rule(module)]
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


@pytest.mark.parametrize(("rule", "bad"), [(rule, bad) for rule, _, broken in BOUND for bad in broken])
def test_the_check_can_fail(rule: Rule, bad: Module) -> None:
    assert list(rule(bad)), bad.text


def test_what_the_checks_must_not_report() -> None:
    fine = parse(
        "workflows/x.py",
        "from temporalio import workflow\nfrom db import idempotency\n"
        "at, chance, random = workflow.now(), workflow.random(), b''\nidempotency.begin(random)\n",
    )
    assert not [*rules.pure(fine), *rules.commits_in_one_place(fine), *rules.waits_have_limits(fine)]


def test_the_lists_of_exceptions_hold_nothing_stale() -> None:
    by_path = {module.path: module for module in in_rooms(*OURS)}
    assert [path for path in rules.TRANSACTION_USERS if not rules.opens_transactions(by_path[path])] == []
    assert [path for path in rules.ENGINE_USERS if not rules.takes_engine_role(by_path[path])] == []
    assert [path for path in rules.INEXACT if not list(rules.inexact(by_path[path]))] == []


def test_imports_go_downwards() -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_no_room_shadows_the_standard_library() -> None:
    """A top folder called ``platform``, ``queue`` or ``types`` would stand before the library's own."""
    assert not {module.room.removesuffix(".py") for module in modules()} & sys.stdlib_module_names


def test_nothing_speaks_of_a_machine_or_a_registry() -> None:
    # Put together here, so that this file does not find itself.
    forbidden = [
        "/wo" + "rk/",
        "/ro" + "ot/",
        "py" + "pi.org",
        "python" + "hosted",
        "registry." + "npmjs",
        "deb." + "debian",
    ]
    found = [
        f"{name}: {word}" for name in files() for word in forbidden if word in (ROOT / name).read_text(errors="ignore")
    ]
    assert not found


def test_every_test_file_is_collected() -> None:
    """A file of tests under another name would never run."""
    strays = [
        name
        for name in files()
        if name.startswith("tests/") and name.endswith(".py") and not Path(name).name.startswith("test_")
        if any(line.startswith(("def test_", "async def test_")) for line in (ROOT / name).read_text().splitlines())
    ]
    assert not strays
