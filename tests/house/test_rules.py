"""The rules of the house hold, and each check can fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house import rules
from tests.house.source import ROOMS, ROOT, Module, files, in_rooms, parse

OURS = (*ROOMS, "worker.py")
Rule = Callable[[Module], Iterator[str]]

#: Rule, the rooms that it binds, and a module that breaks it.
BOUND: list[tuple[Rule, tuple[str, ...], Module]] = [
    (rules.small, (*OURS, "tests"), parse("db/long.py", "x = 1\n" * 401)),
    (rules.small, OURS, parse("db/long.py", "def f():\n" + "    x = 1\n" * 70)),
    (rules.not_empty, (*OURS, "tests"), parse("db/nothing.py", "\n")),
    (rules.pure, ("domain", "workflows"), parse("domain/x.py", "from datetime import datetime\nat = datetime.now()")),
    (rules.pure, ("domain", "workflows"), parse("workflows/x.py", "import os\nx = os.environ['A']")),
    (rules.exact, ("domain",), parse("domain/x.py", "fee = 0.1")),
    (rules.exact, ("domain",), parse("domain/x.py", "fee = float(text)")),
    (rules.commits_in_one_place, OURS, parse("api/x.py", "async def f(c):\n    await c.commit()")),
    (rules.commits_in_one_place, OURS, parse("api/x.py", "async def f(self):\n    self._engine.begin()")),
    (rules.engine_role_is_listed, OURS, parse("api/x.py", "engine = create_engine(url, Role.ENGINE)")),
    (rules.waits_have_limits, ("workflows",), parse("workflows/x.py", "workflow.execute_activity(f, summary='s')")),
    (rules.waits_have_limits, ("workflows",), parse("workflows/x.py", "workflow.wait_condition(f, timeout=1)")),
    (rules.waits_have_limits, ("workflows",), parse("workflows/x.py", "workflow.sleep(1)")),
    (rules.vendors_stay_outside, OURS, parse("api/x.py", "from activities.vendors import mail")),
    (rules.root_stays_on_top, OURS, parse("api/x.py", "import worker")),
    (rules.settings_are_read_on_top, OURS, parse("db/x.py", "from kit.settings import ApiSettings")),
]


@pytest.mark.parametrize(("rule", "rooms"), sorted({(rule, rooms) for rule, rooms, _ in BOUND}, key=str))
def test_the_rule_holds(rule: Rule, rooms: tuple[str, ...]) -> None:
    broken = [fault for module in in_rooms(*rooms) for fault in rule(module)]
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


@pytest.mark.parametrize(("rule", "bad"), [(rule, bad) for rule, _, bad in BOUND])
def test_the_check_can_fail(rule: Rule, bad: Module) -> None:
    assert list(rule(bad))


def test_imports_go_downwards() -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_no_room_shadows_the_standard_library() -> None:
    top = {name.split("/")[0].removesuffix(".py") for name in files()}
    assert not top & {"platform", "queue", "types", "secrets", "calendar", "email"}


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
