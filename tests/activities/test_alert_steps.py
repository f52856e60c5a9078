"""The steps of alerts on the real database: one answer for every attempt, and an acknowledgement against a send."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.alerts.messages import (
    AcknowledgeAlert,
    AdvanceAlert,
    AlertOutcome,
    Moved,
    OutcomeMessage,
    RecordAcknowledgement,
    SendAttempt,
)
from activities.alerts.sending import Senders, SendingActivities
from activities.alerts.steps import AlertActivities
from activities.ports import Callback, Handed, Mail, Sms, Taken
from db.alerts import notifications
from db.alerts.attempts import Phase
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from domain.alerts.delivery import Heard
from domain.alerts.model import AlertType, Channel, Policy, Status, Step
from domain.errors import Refusal
from kit.clock import now
from tests.alerting import USER, Alerting
from tests.domain.alerts import alert

POLICY = Policy(must_acknowledge=True, steps=(Step(), Step(1, channels=tuple(Channel))), repeat=3, repeat_seconds=1)


class Sent:
    """Whoever sends anything, and what."""

    name = "test"

    def __init__(self) -> None:
        self.taken: list[UUID] = []

    async def send(self, message: Mail | Sms | Callback) -> Handed:
        self.taken.append(message.attempt_id)
        return Taken("reference")

    async def find(self, sms: Sms, since: Any) -> Handed:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is held."""


class Desk:
    """One alert of a tenant without any workflow: the test calls the steps."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.tenant = tenant
        self.engine = engine
        self.alerting = Alerting(engine, tenant)
        self.sent = Sent()
        senders = Senders(self.sent, self.sent, self.sent)
        self.steps = AlertActivities(
            engine, Doorbell(engine), vendors=senders.names(), base_url="https://desk.example.com/"
        )
        self.sending = SendingActivities(engine, senders)
        self.notification_id = new_id()
        self.at = now()

    async def raised(self) -> None:
        """The alert, of which somebody has to take note, and a user with two ways."""
        for channel in (Channel.EMAIL, Channel.SMS):
            await self.alerting.contact(channel)
        made = alert(
            AlertType.CALL,
            tenant_id=self.tenant,
            notification_id=self.notification_id,
            policy=POLICY,
            raised_at=self.at,
        )
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await notifications.add(connection, [(made, bytes(32))])

    async def advance(self, *outcomes: OutcomeMessage, seconds: int = 0, step: str | None = None) -> Moved:
        asked = AdvanceAlert(
            tenant_id=self.tenant,
            notification_id=self.notification_id,
            step=step or str(new_id()),
            at=self.at + timedelta(seconds=seconds),
            outcomes=outcomes,
        )
        return Moved.model_validate(await ActivityEnvironment().run(self.steps.advance, asked))

    async def acknowledge(self, command_id: UUID | None = None, by: str = USER) -> AlertOutcome:
        command = AcknowledgeAlert(command_id=command_id or new_id(), by=by, via="api")
        asked = RecordAcknowledgement(
            tenant_id=self.tenant, notification_id=self.notification_id, command=command, at=now()
        )
        return AlertOutcome.model_validate(await ActivityEnvironment().run(self.steps.acknowledge, asked))

    async def send(self, attempt: SendAttempt) -> OutcomeMessage:
        return OutcomeMessage.model_validate(await ActivityEnvironment().run(self.sending.send, attempt))

    async def phases(self) -> list[Phase]:
        return [one.entry.phase for one in await self.alerting.log(self.notification_id)]


@pytest.fixture
async def desk(tenants_engine: AsyncEngine, tenant: UUID) -> Desk:
    made = Desk(tenants_engine, tenant)
    await made.raised()
    return made


async def test_a_step_that_is_repeated_begins_nothing_twice(desk: Desk) -> None:
    first, again = await asyncio.gather(desk.advance(step="one"), desk.advance(step="one"))
    assert first == again
    assert len(first.sends) == 1
    assert await desk.phases() == [Phase.BEGUN]
    outcome = await desk.send(first.sends[0])
    assert outcome.heard is Heard.TAKEN
    for _ in range(2):
        assert (await desk.advance(outcome, step="two")).status is Status.SENT
    assert await desk.phases() == [Phase.BEGUN, Phase.ENDED]
    [begun, _] = await desk.alerting.log(desk.notification_id)
    assert "https://desk.example.com/a/" in (begun.entry.body or "")


async def test_nothing_is_sent_behind_an_acknowledgement(desk: Desk) -> None:
    moved = await desk.advance()
    await desk.acknowledge()
    outcome = await desk.send(moved.sends[0])
    assert (outcome.heard, desk.sent.taken) == (Heard.NOT_TAKEN, []), "its row was there, its call never began"
    assert (await desk.advance(outcome, seconds=10)).sends == ()
    assert await desk.phases() == [Phase.BEGUN, Phase.ACKNOWLEDGED, Phase.ENDED]


async def test_acknowledgement_against_escalation(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    """At once, many times: whichever comes first, no attempt begins behind the acknowledgement."""
    for number in range(12):
        desk = Desk(tenants_engine, tenant)
        if number == 0:
            await desk.raised()
        else:
            made = alert(
                AlertType.CALL,
                tenant_id=tenant,
                notification_id=desk.notification_id,
                policy=POLICY,
                raised_at=desk.at,
            )
            async with tenant_transaction(tenants_engine, tenant) as connection:
                await notifications.add(connection, [(made, bytes(32))])
        first = await desk.advance()
        heard = [await desk.send(attempt) for attempt in first.sends]
        moves = [
            desk.advance(*heard, seconds=1),
            desk.acknowledge(),
            desk.acknowledge(by="bob"),
            desk.advance(seconds=2),
        ]
        if number % 2:
            moves.reverse()
        await asyncio.gather(*moves)
        phases = await desk.phases()
        assert phases.count(Phase.ACKNOWLEDGED) == 1
        assert Phase.BEGUN not in phases[phases.index(Phase.ACKNOWLEDGED) :]
        assert (await desk.advance(seconds=3_600)).sends == ()


async def test_an_attempt_that_waited_too_long_is_not_begun(desk: Desk, owner_engine: AsyncEngine) -> None:
    moved = await desk.advance()
    attempt = moved.sends[0]
    stale = SendingActivities(desk.engine, Senders(desk.sent, desk.sent, desk.sent), fresh_seconds=0)
    outcome = OutcomeMessage.model_validate(await ActivityEnvironment().run(stale.send, attempt))
    assert (outcome.heard, desk.sent.taken) == (Heard.NOT_TAKEN, [])


async def test_what_is_unknown_is_refused(desk: Desk) -> None:
    desk.notification_id = new_id()
    with pytest.raises(Refusal, match="alert_unknown"):
        await desk.advance()
    with pytest.raises(Refusal, match="alert_unknown"):
        await desk.acknowledge()
