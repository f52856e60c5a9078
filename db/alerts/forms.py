"""Policies and deliveries as the JSON that rows keep of them. Fields are only ever added: rows age."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.alerts.model import Channel, Delivery, DeliveryState, Policy, Step, Why

_TIMES = ("not_before", "begun_at", "sent_at", "delivered_at", "failed_at")


def policy_form(policy: Policy) -> dict[str, Any]:
    """A policy as JSON."""
    return {
        "must_acknowledge": policy.must_acknowledge,
        "steps": [
            {
                "after_seconds": step.after_seconds,
                "to": list(step.to),
                "channels": None if step.channels is None else list(step.channels),
            }
            for step in policy.steps
        ],
        "repeat": policy.repeat,
        "repeat_seconds": policy.repeat_seconds,
        "window_seconds": policy.window_seconds,
    }


def policy_of(form: Mapping[str, Any]) -> Policy:
    """The policy that JSON of ours says."""
    return Policy(
        must_acknowledge=form["must_acknowledge"],
        steps=tuple(
            Step(
                step["after_seconds"],
                tuple(step["to"]),
                None if step["channels"] is None else tuple(Channel(name) for name in step["channels"]),
            )
            for step in form["steps"]
        ),
        repeat=form["repeat"],
        repeat_seconds=form["repeat_seconds"],
        window_seconds=form["window_seconds"],
    )


def delivery_form(delivery: Delivery) -> dict[str, Any]:
    """A delivery as JSON."""
    times = {name: getattr(delivery, name) for name in _TIMES}
    return {
        "number": delivery.number,
        "why": delivery.why,
        "step": delivery.step,
        "contact_id": str(delivery.contact_id),
        "user_id": delivery.user_id,
        "channel": delivery.channel,
        "address": delivery.address,
        "state": delivery.state,
        "attempt_id": None if delivery.attempt_id is None else str(delivery.attempt_id),
        "attempts": delivery.attempts,
        "looks": delivery.looks,
        "reference": delivery.reference,
        "code": delivery.code,
        "detail": delivery.detail,
        "handed_on": delivery.handed_on,
        "bounced": delivery.bounced,
    } | {name: None if time is None else time.isoformat() for name, time in times.items()}


def delivery_of(form: Mapping[str, Any]) -> Delivery:
    """The delivery that JSON of ours says."""
    times = {name: None if form[name] is None else datetime.fromisoformat(form[name]) for name in _TIMES}
    return Delivery(
        number=form["number"],
        why=Why(form["why"]),
        step=form["step"],
        contact_id=UUID(form["contact_id"]),
        user_id=form["user_id"],
        channel=Channel(form["channel"]),
        address=form["address"],
        state=DeliveryState(form["state"]),
        attempt_id=None if form["attempt_id"] is None else UUID(form["attempt_id"]),
        attempts=form["attempts"],
        looks=form["looks"],
        reference=form["reference"],
        code=form["code"],
        detail=form["detail"],
        handed_on=form["handed_on"],
        bounced=form["bounced"],
        **times,
    )
