"""What an escrow waits for: the query's answer, and the text that operators read in the Temporal UI."""

from __future__ import annotations

from datetime import datetime

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
    return f"{_amount(escrow, _total(escrow))} · {terms.buyer.user_id} → {terms.seller.user_id}"


def details(escrow: rules.Escrow) -> str:
    """Markdown for the Temporal UI: status, what it waits for and until when, and each milestone."""
    terms = escrow.terms
    lines = [f"**{escrow.status.upper()}** · {summary(escrow)}"]
    if terms.arbiter is not None:
        lines[0] += f" · arbiter {terms.arbiter.user_id}"
    lines += ["", *(f"- {_wait_line(escrow, wait)}" for wait in rules.waiting_for(escrow))]
    if escrow.status in rules.CLOSED:
        lines.append("- Closed; nothing is awaited.")
    lines += ["", "| # | milestone | amount | status | released | refunded |", "|--:|---|--:|---|--:|--:|"]
    lines += [
        f"| {m.position} | {_cell(m.title)} | {_amount(escrow, m.amount_minor)} | {m.status} |"
        f" {_amount(escrow, m.released_minor)} | {_amount(escrow, m.refunded_minor)} |"
        for m in escrow.milestones
    ]
    return "\n".join(lines)


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


def _wait_line(escrow: rules.Escrow, wait: rules.Wait) -> str:
    users = {role: party.user_id for role, party in escrow.parties()}
    who = " or ".join(f"the {role} ({users[role]})" if role in users else f"the {role}" for role in wait.roles)
    what = "all milestones" if len(wait.positions) == len(escrow.milestones) else _numbers(wait.positions)
    line = _ASKS[wait.what].format(who=who or "nobody", what=what)
    if wait.until is None:
        return f"{line}, without a deadline."
    return f"{line} until **{wait.until:%Y-%m-%d %H:%M:%S} UTC**, {_THEN.get(wait.what, 'then the clock decides')}."


def _numbers(positions: tuple[int, ...]) -> str:
    listed = ", ".join(str(position) for position in positions)
    return f"milestone {listed}" if len(positions) == 1 else f"milestones {listed}"


def _total(escrow: rules.Escrow) -> int:
    return sum(milestone.amount_minor for milestone in escrow.terms.milestones)


def _amount(escrow: rules.Escrow, minor: int) -> str:
    text = format_minor(minor, escrow.terms.asset.scale)
    shortened = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{shortened} {escrow.terms.asset.symbol}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:80]
