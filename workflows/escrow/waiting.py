"""What an escrow waits for: the query's answer, and the text that operators read in the Temporal UI."""

from __future__ import annotations

from datetime import datetime, timedelta

from activities.messages import Message
from domain import escrow as rules
from domain.money import format_minor


class WaitMessage(Message):
    """Milestones that wait for the same: any of ``roles`` may give any of ``commands`` before ``until``."""

    what: rules.WaitsFor
    roles: tuple[rules.Role, ...]
    commands: tuple[str, ...]
    milestones: tuple[int, ...]
    until: datetime | None = None


class Waiting(Message):
    """What an open escrow waits for. ``next_deadline`` is when the clock acts by itself."""

    status: rules.Status
    waits: tuple[WaitMessage, ...]
    next_deadline: datetime | None = None
    next_deadline_kind: rules.DeadlineKind | None = None


def waiting(escrow: rules.Escrow) -> Waiting:
    """The query's answer for an escrow."""
    deadline = rules.next_deadline(escrow)
    return Waiting(
        status=escrow.status,
        waits=tuple(
            WaitMessage(
                what=wait.what, roles=wait.roles, commands=wait.commands, milestones=wait.positions, until=wait.until
            )
            for wait in rules.waiting_for(escrow)
        ),
        next_deadline=None if deadline is None else deadline.at,
        next_deadline_kind=None if deadline is None else deadline.kind,
    )


def summary(escrow: rules.Escrow) -> str:
    """One line: how much goes from whom to whom."""
    terms = escrow.terms
    return f"{_amount(escrow, _total(escrow))} · {short(terms.buyer.user_id)} → {short(terms.seller.user_id)}"


def details(escrow: rules.Escrow) -> str:
    """Markdown for the Temporal UI: status, what it waits for and until when, and each milestone."""
    terms = escrow.terms
    lines = [f"**{escrow.status.upper()}** · {summary(escrow)}"]
    if terms.arbiter is not None:
        lines[0] += f" · arbiter {terms.arbiter.user_id}"
    if terms.custody is not None:
        lines.append(f"- A contract keeps the money, and is asked there: {terms.custody.onchain_id}")
        lines.append(f"- followed by {terms.custody.relayer_id}")
    lines += ["", *(f"- {_wait_line(escrow, wait)}" for wait in rules.waiting_for(escrow))]
    if escrow.status in rules.CLOSED:
        lines.append("- Closed; nothing is awaited.")
    lines += ["", *(f"{milestone.position}. {_milestone_line(escrow, milestone)}" for milestone in escrow.milestones)]
    return "\n".join(lines)


def agreed(escrow: rules.Escrow) -> str:
    """Markdown for the Temporal UI: what was agreed, which never changes."""
    terms = escrow.terms
    lines = [f"- {role}: {party.user_id}{_address(party)}" for role, party in escrow.parties()]
    who = ", ".join(terms.policy.roles)
    lines.append(f"- approval: {terms.policy.required} of {who}")
    for payer, points in (("buyer", terms.buyer_fee_basis_points), ("seller", terms.seller_fee_basis_points)):
        if points:
            lines.append(f"- fee paid by the {payer}: {points} basis points")
    if terms.funding_deadline is not None:
        lines.append(f"- to be funded before {_instant(terms.funding_deadline)}")
    if terms.inspection_period_seconds is not None:
        lines.append(f"- inspection period: {_period(terms.inspection_period_seconds)}, then release")
    if terms.expires_at is not None:
        lines.append(f"- expires {_instant(terms.expires_at)}, then refund")
    if terms.reference is not None:
        lines.append(f"- reference: {_one_line(terms.reference)}")
    return "\n".join(lines)


def timer_summary(escrow: rules.Escrow, deadline: rules.Deadline) -> str:
    """One line for the timer of a deadline: what ends, and what the clock will do then."""
    buyer, seller = short(escrow.terms.buyer.user_id), short(escrow.terms.seller.user_id)
    match deadline.kind:
        case rules.DeadlineKind.FUNDING:
            return "funding deadline: what is not funded by then expires"
        case rules.DeadlineKind.INSPECTION:
            return f"inspection of milestone {deadline.position} ends: what is left goes to {seller}"
        case rules.DeadlineKind.EXPIRY:
            return f"expiry: what nobody approved returns to {buyer}"


_NAME_CHARACTERS_MAX = 40

_ASKS = {
    rules.WaitsFor.FUNDING: "Waits for {who} to fund {what}",
    rules.WaitsFor.APPROVAL: "Waits for approval of {what} by {who}",
    rules.WaitsFor.RELEASE: "Waits for {who} to release {what}",
    rules.WaitsFor.INSPECTION: "Inspection of {what}: {who} may release or dispute",
    rules.WaitsFor.RESOLUTION: "Disputed: waits for {who} to resolve {what}",
}

_THEN = {
    rules.WaitsFor.FUNDING: "then it expires",
    rules.WaitsFor.APPROVAL: "then the money returns to the buyer",
    rules.WaitsFor.INSPECTION: "then it is released to the seller",
}


def short(user_id: str) -> str:
    """A user id for a summary: the server refuses summaries above 400 bytes."""
    return user_id if len(user_id) <= _NAME_CHARACTERS_MAX else f"{user_id[: _NAME_CHARACTERS_MAX - 1]}…"


def _wait_line(escrow: rules.Escrow, wait: rules.Wait) -> str:
    users = {role: party.user_id for role, party in escrow.parties()}
    who = " or ".join(f"the {role} ({users[role]})" if role in users else f"the {role}" for role in wait.roles)
    what = "all milestones" if len(wait.positions) == len(escrow.milestones) else _numbers(wait.positions)
    line = _ASKS[wait.what].format(who=who or "nobody", what=what)
    if wait.until is None:
        return f"{line}, without a deadline."
    return f"{line} until **{_instant(wait.until)}**, {_THEN.get(wait.what, 'then the clock decides')}."


def _milestone_line(escrow: rules.Escrow, milestone: rules.Milestone) -> str:
    line = f"{_one_line(milestone.title)}: {_amount(escrow, milestone.amount_minor)}, **{milestone.status}**"
    if milestone.released_minor:
        line += f", {_amount(escrow, milestone.released_minor)} released"
    if milestone.refunded_minor:
        line += f", {_amount(escrow, milestone.refunded_minor)} refunded"
    if milestone.dispute is not None:
        line += f"; disputed by {milestone.dispute.user_id}: {_one_line(milestone.dispute.reason)}"
    return line


def _address(party: rules.Party) -> str:
    return "" if party.address is None else f" ({party.address})"


def _period(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    parts = [f"{days} day{'s' if days != 1 else ''}"] if days else []
    return " and ".join([*parts, str(timedelta(seconds=rest))] if rest else parts)


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _numbers(positions: tuple[int, ...]) -> str:
    listed = ", ".join(str(position) for position in positions)
    return f"milestone {listed}" if len(positions) == 1 else f"milestones {listed}"


def _total(escrow: rules.Escrow) -> int:
    return sum(milestone.amount_minor for milestone in escrow.terms.milestones)


def _amount(escrow: rules.Escrow, minor: int) -> str:
    text = format_minor(minor, escrow.terms.asset.scale)
    shortened = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{shortened} {escrow.terms.asset.symbol}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:80]
