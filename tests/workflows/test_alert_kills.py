"""A worker that is killed at every point of a delivery: nothing is lost, and nothing is sent a second time unless the
first was proven not to have been taken."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from temporalio.client import Client

from db.engine import transaction
from domain.alerts.model import Channel, DeliveryState
from kit.build import ROOT
from tests.alert_house import AlertHouse, alert_house
from tests.polling import eventually
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer

#: By the last digit: where the worker stands when it is killed.
BEFORE, BEHIND, DECIDING, RECORDING, DONE = (f"+49151123456{number}0{number}" for number in (1, 2, 3, 4, 5))
USERS = {"before": BEFORE, "behind": BEHIND, "deciding": DECIDING, "recording": RECORDING, "done": DONE}


@contextmanager
def process(address: str, house: AlertHouse, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "worker.log").open("ab") as output:
        command = [
            sys.executable, "-m", "tests.alert_worker", address, house.queue, house.url, house.twilio.url, str(folder)
        ]  # fmt: skip
        started = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            yield started
        finally:
            started.kill()
            started.wait(10)


@pytest.mark.timeout(180)
async def test_a_worker_killed_at_every_point_of_a_delivery(
    postgres: EmbeddedPostgres, temporal: Client, temporal_server: TemporalDevServer, tmp_path: Path
) -> None:
    async with alert_house(postgres, temporal, temporal_server.address, working=False) as house:
        alerting = house.alerting
        for user, number in USERS.items():
            await alerting.contact(Channel.SMS, number, user=user)

        async def begun(user: str) -> bool:
            return any(one.alert.deliveries for one in await alerting.alerts(user_id=user))

        async def sent(number: str) -> bool:
            return number in [message.to for message in house.twilio.messages]

        async def reached() -> bool:
            return (tmp_path / f"{BEFORE}.before").exists() and (tmp_path / f"{BEHIND}.behind").exists()

        async def ended(user: str) -> bool:
            [found] = await alerting.alerts(user_id=user)
            return [each.state for each in found.alert.deliveries] == [DeliveryState.SENT]

        with process(temporal_server.address, house, tmp_path) as first:
            await make_current(temporal, Build(house.queue, "only"))
            await alerting.happen("liquidation_due", user="done")
            await eventually(lambda: begun("done"), limit_seconds=40)
            await eventually(lambda: ended("done"))
            async with transaction(house.engine) as holder:
                await alerting.happen("liquidation_due", user="deciding")
                await eventually(lambda: _held(house, "deciding"))
                await holder.execute(text("SELECT FROM alert_notifications WHERE user_id = 'deciding' FOR UPDATE"))
                for user in ("before", "behind"):
                    await alerting.happen("liquidation_due", user=user)
                await eventually(reached, limit_seconds=30)
                await alerting.happen("liquidation_due", user="recording")
                await eventually(lambda: sent(RECORDING))
                await holder.execute(text("SELECT FROM alert_notifications WHERE user_id = 'recording' FOR UPDATE"))
                first.kill()
                first.wait(10)
        assert not await sent(BEFORE)
        assert await sent(BEHIND)
        (tmp_path / "go").touch()
        with process(temporal_server.address, house, tmp_path):
            for user in USERS:
                await eventually(lambda who=user: ended(who), limit_seconds=90)  # type: ignore[misc]
        counts = Counter(message.to for message in house.twilio.messages)
        assert counts == dict.fromkeys(USERS.values(), 1)
        log = [
            (one.entry.phase.value, one.entry.outcome)
            for one in await alerting.log((await alerting.alerts(user_id="before"))[0].notification_id)
        ]
        assert log == [
            ("begun", None),
            ("ended", "unsure"),
            ("found", "not_taken"),
            ("begun", None),
            ("ended", "taken"),
        ], "it was proven absent before it was sent again"


async def _held(house: AlertHouse, user: str) -> bool:
    return bool(await house.alerting.alerts(user_id=user))
