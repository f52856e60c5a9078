"""The one door through which an escrow changes: who may, then what happens."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from domain.errors import Refusal
from domain.escrow.agreeing import approve, cancel, dispute, fund
from domain.escrow.commands import Approve, Cancel, Command, Dispute, Fund, PassDeadline, Refund, Release, Resolve
from domain.escrow.draft import Draft
from domain.escrow.model import CLOSED, Decision, Escrow, Role
from domain.escrow.paying import pass_deadline, refund, release, resolve


def decide(escrow: Escrow, command: Command, *, user_id: str | None, at: datetime, followed: bool = False) -> Decision:
    """What ``command`` does to ``escrow``, or a ``Refusal`` with one of ``CODES``.

    ``user_id`` None is the system, which may do nothing but ``PassDeadline``. ``followed``: a chain carried it out at
    that instant; nothing else moves an escrow whose money a chain keeps. Refusals are decided in this order: who asks,
    of whom, whether the escrow is open, then what is asked and whether its time has come.
    """
    if followed and escrow.terms.custody is None:
        raise ValueError(f"escrow {escrow.escrow_id} is on no chain")
    role = _role(escrow, user_id)
    _check_role(escrow, command, role)
    if escrow.terms.custody is not None and not followed:
        raise Refusal("escrow_on_chain", f"escrow {escrow.terms.custody.onchain_id} is asked on its chain")
    if escrow.status in CLOSED:
        raise Refusal("escrow_closed", f"the escrow is {escrow.status}")
    draft = Draft(escrow, role, user_id or Role.SYSTEM, at)
    match command:
        case Fund():
            fund(draft, command)
        case Approve():
            approve(draft, command)
        case Release():
            release(draft, command)
        case Refund():
            refund(draft, command)
        case Dispute():
            dispute(draft, command)
        case Resolve():
            resolve(draft, command)
        case Cancel():
            cancel(draft)
        case PassDeadline():
            pass_deadline(draft)
        case _:
            assert_never(command)
    return draft.finish()


def _role(escrow: Escrow, user_id: str | None) -> Role:
    if user_id is None:
        return Role.SYSTEM
    role = escrow.role_of(user_id)
    if role is None:
        raise Refusal("not_a_party", "the user is neither buyer nor seller nor arbiter of this escrow")
    return role


def _check_role(escrow: Escrow, command: Command, role: Role) -> None:
    if isinstance(command, Resolve) and escrow.terms.arbiter is None:
        raise Refusal("no_arbiter", "this escrow has no arbiter: release or refund to end the dispute")
    if role not in _allowed_roles(escrow, command):
        raise Refusal("role_not_allowed", f"the {role} cannot {_verb(command)} here")


def _allowed_roles(escrow: Escrow, command: Command) -> tuple[Role, ...]:
    match command:
        case Fund():
            return (Role.BUYER,)
        case Approve():
            return escrow.terms.policy.roles
        case Refund():
            return (Role.SELLER,)
        case Release() | Dispute() | Cancel():
            return (Role.BUYER, Role.SELLER)
        case Resolve():
            return (Role.ARBITER,)
        case PassDeadline():
            return (Role.SYSTEM,)
        case _:
            assert_never(command)


def _verb(command: Command) -> str:
    return "pass a deadline" if isinstance(command, PassDeadline) else type(command).__name__.lower()
