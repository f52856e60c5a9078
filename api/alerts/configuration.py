"""What users wish and tenants decide about alerts, the texts, the local mailbox, and who could not be told."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.alerts.changes import leave_change
from api.alerts.models import (
    GapView,
    MailboxView,
    Policies,
    PolicyInput,
    PolicyType,
    PolicyView,
    PreferencesInput,
    PreferencesView,
    PreviewInput,
    PreviewView,
    StepModel,
    Templates,
    TemplateView,
    clock,
    mailbox_view,
    preview_view,
)
from api.deps import Call, caller, poster, router
from api.fields import Line
from api.idempotency import Answer, Attempt, Configuration, once
from api.ledger.routes import own_account
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.alerts import mailbox, people
from domain.alerts import hours
from domain.alerts.model import POLICIES, Alert, AlertType, Channel, Policy, Preferences, Severity, Step
from domain.alerts.render import EXAMPLES, check_locale, render
from domain.alerts.texts import LANGUAGES
from domain.errors import Refusal
from domain.identity import Scope
from kit.clock import now

routes = router("/alerts", "alerts")

Reader = Annotated[Call, Depends(caller(Scope.ALERTS_READ))]
Writer = Annotated[Call, Depends(caller(Scope.ALERTS_WRITE))]
UserPath = Annotated[Line, Path(description="The user whose wishes they are", examples=["alice"])]
#: What a link in a preview looks like; it acknowledges nothing.
_PREVIEW_LINK = "https://example.com/a/" + "A" * 40


@routes.get("/preferences/{user_id:path}")
async def read_preferences(user_id: UserPath, call: Reader) -> PreferencesView:
    """What a user wishes; a user without wishes has those that are not set."""
    user = own_account(call, user_id)
    async with call.transaction() as connection:
        found = await people.preferences(connection, call.principal.tenant_id, [user])
    return _preferences_view(user, found.get(user, Preferences()))


@routes.put("/preferences/{user_id:path}", responses=documented(413, 415))
async def set_preferences(user_id: UserPath, body: PreferencesInput, call: Writer) -> PreferencesView:
    """Set all of a user's wishes: language, clock, quiet hours and least urgency."""
    user = own_account(call, user_id)
    check_locale(body.locale)
    wishes = Preferences(
        body.locale, body.time_zone, clock(body.quiet_from), clock(body.quiet_to), body.minimum_severity
    )
    hours.check(wishes)
    view = _preferences_view(user, wishes)
    async with call.transaction() as connection:
        await people.set_preferences(connection, call.principal.tenant_id, user, wishes)
        facts = view.model_dump(mode="json")
        await leave_change(call, connection, f"alerts:preferences:{user}", "preferences.set", facts)
    return view


@routes.get("/policies")
async def list_policies(call: Reader) -> Policies:
    """What follows alerts of each type until somebody acknowledges them."""
    async with call.transaction() as connection:
        decided = await people.policies(connection, [call.principal.tenant_id])
    mine = {alert_type: policy for (_, alert_type), policy in decided.items()}
    return Policies(
        items=[_policy_view(each, mine.get(each)) for each in AlertType if each is not AlertType.CONTACT_CODE]
    )


@routes.put("/policies/{alert_type}", responses=documented(413, 415))
async def set_policy(alert_type: PolicyType, body: PolicyInput, call: Writer) -> PolicyView:
    """Decide what follows alerts of a type; those that go on keep the policy they began with. Service keys only."""
    call.require_service_key()
    if body.steps[0].after_seconds or any(not step.after_seconds for step in body.steps[1:]):
        raise Refusal(
            "policy_steps_invalid", "the first step begins at once, each later one after a pause", field="steps"
        )
    policy = Policy(
        must_acknowledge=body.must_acknowledge,
        steps=tuple(
            Step(step.after_seconds, tuple(step.to), None if step.channels is None else tuple(step.channels))
            for step in body.steps
        ),
        repeat=body.repeat,
        repeat_seconds=body.repeat_seconds,
        window_seconds=body.window_seconds,
    )
    view = _policy_view(alert_type, policy)
    async with call.transaction() as connection:
        await people.set_policy(connection, call.principal.tenant_id, alert_type, policy)
        await leave_change(call, connection, f"alerts:policy:{alert_type}", "policy.set", view.model_dump(mode="json"))
    return view


@routes.delete("/policies/{alert_type}", status_code=204)
async def reset_policy(alert_type: PolicyType, call: Writer) -> Response:
    """Go back to the house's policy for a type. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        await people.set_policy(connection, call.principal.tenant_id, alert_type, None)
        await leave_change(call, connection, f"alerts:policy:{alert_type}", "policy.reset", {"alert_type": alert_type})
    return Response(status_code=204)


@routes.get("/templates")
async def list_templates(call: Reader) -> Templates:
    """What there are words for, and in which languages."""
    del call
    return Templates(items=[TemplateView(alert_type=each, locales=sorted(LANGUAGES)) for each in AlertType])


@routes.post("/templates/{alert_type}/preview", response_model=PreviewView, responses=documented(413, 415))
async def preview_template(
    alert_type: AlertType, body: PreviewInput, call: Annotated[Call, Depends(poster(Scope.ALERTS_READ))]
) -> Response:
    """An alert in words: both forms of the mail, and the text message. Nothing is sent."""
    return await once(call, _Preview(call, alert_type, body))


@routes.get("/mailbox")
async def list_mailbox(
    call: Reader,
    channel: Annotated[Channel | None, Query()] = None,
    address: Annotated[Line | None, Query()] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[MailboxView]:
    """What people would have got, the newest first: without accounts at vendors it ends here. Service keys only."""
    call.require_service_key()
    pager = Pager("mailbox", {"channel": channel, "address": address})
    async with call.transaction() as connection:
        rows = await mailbox.list_(
            connection,
            call.principal.tenant_id,
            channel=channel,
            address=address,
            before=pager.before(cursor),
            limit=limit + 1,
        )
    rows, next_cursor = pager.page(rows, limit, "message_id")
    return Page(items=[mailbox_view(row) for row in rows], next_cursor=next_cursor)


@routes.get("/readiness")
async def list_readiness_gaps(call: Reader, cursor: CursorToken = None, limit: Limit = DEFAULT_LIMIT) -> Page[GapView]:
    """Users who owe something and could not be told: without any verified channel, or with one alone, by name. Service
    keys only."""
    call.require_service_key()
    pager = Pager("readiness", {})
    async with call.transaction() as connection:
        rows = await people.gaps(
            connection, call.principal.tenant_id, after=pager.position(cursor) or "", limit=limit + 1
        )
    rows, next_cursor = pager.page(rows, limit, "user_id")
    gaps = [
        GapView(
            user_id=row.user_id,
            verified_channels=[Channel(name) for name in row.verified_channels],
            reachable=bool(row.verified_channels),
        )
        for row in rows
    ]
    return Page(items=gaps, next_cursor=next_cursor)


class _Preview(Configuration):
    """A preview; nothing is written."""

    def __init__(self, call: Call, alert_type: AlertType, body: PreviewInput) -> None:
        self._call = call
        self._alert_type = alert_type
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        del connection
        check_locale(self._body.locale)
        policy = POLICIES[self._alert_type]
        shown = Alert(
            tenant_id=self._call.principal.tenant_id,
            notification_id=attempt.operation_id,
            user_id="preview",
            alert_type=self._alert_type,
            severity=Severity.HIGH,
            policy=policy,
            facts=self._body.facts if self._body.facts is not None else EXAMPLES[self._alert_type],
            raised_at=now(),
            occurrences=self._body.occurrences,
        )
        link, code = (_PREVIEW_LINK, "7F3K") if policy.must_acknowledge else (None, None)
        return Answer(200, preview_view(render(shown, Preferences(self._body.locale), link=link, code=code)))


def _preferences_view(user: str, wishes: Preferences) -> PreferencesView:
    return PreferencesView(
        user_id=user,
        locale=wishes.locale,
        time_zone=wishes.time_zone,
        quiet_from=None if wishes.quiet_from is None else f"{wishes.quiet_from:%H:%M}",
        quiet_to=None if wishes.quiet_to is None else f"{wishes.quiet_to:%H:%M}",
        minimum_severity=wishes.minimum_severity,
    )


def _policy_view(alert_type: AlertType, decided: Policy | None) -> PolicyView:
    policy = decided or POLICIES[alert_type]
    return PolicyView(
        alert_type=alert_type,
        default=decided is None,
        must_acknowledge=policy.must_acknowledge,
        steps=[
            StepModel(
                after_seconds=step.after_seconds,
                to=list(step.to),
                channels=None if step.channels is None else list(step.channels),
            )
            for step in policy.steps
        ],
        repeat=policy.repeat,
        repeat_seconds=policy.repeat_seconds,
        window_seconds=policy.window_seconds,
    )
