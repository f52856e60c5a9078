"""What the benches do with escrows: the same four commands, by way of workflows alone or of the API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any, Protocol, cast
from uuid import UUID

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy

from db.ids import new_id
from tests.bench import bare
from tests.bench.client import Http
from tests.bench.load import Done
from tests.bench.preload import ASSET, BUYERS
from tests.bench.stack import Bench
from workflows.client import EscrowClient
from workflows.escrow import (
    ApproveMessage,
    CommandMessage,
    EscrowCommand,
    EscrowOutcome,
    FundMessage,
    MilestoneTermsMessage,
    OpenEscrow,
    OriginMessage,
    PartyMessage,
    ReleaseMessage,
    TermsMessage,
)
from workflows.limits import TASK_TIMEOUT
from workflows.search import attributes

KINDS = ("create", "fund", "approve", "release")
_COMMANDS: Sequence[CommandMessage] = (FundMessage(), ApproveMessage(), ReleaseMessage())
_PATHS = ("fund", "approvals", "release")


def buyer(number: int) -> str:
    """One of the parties that were given money."""
    return f"buyer-{number % BUYERS:03}"


def seller(number: int) -> str:
    """Whom it pays."""
    return f"seller-{number % BUYERS:03}"


class Direct:
    """A lifecycle through ``EscrowClient`` and the real workflow: everything but HTTP and its idempotency rows."""

    def __init__(self, bench: Bench) -> None:
        self._client: EscrowClient = bench.escrow_client
        self._tenant = bench.tenant

    async def create(self, number: int) -> UUID:
        """Open an escrow."""
        opening = _opening(self._tenant, number)
        await self._client.open(opening, summary="a bench's escrow", details="between two parties of a bench")
        return opening.escrow_id

    async def move(self, escrow_id: UUID, number: int, step: int) -> None:
        """Command ``step`` of ``KINDS``."""
        await self._client.command(self._tenant, escrow_id, _command(number, step))


class Bare:
    """The same calls to the workflow that does nothing."""

    def __init__(self, bench: Bench) -> None:
        self._client: Client = bench.client
        self._tenant = bench.tenant

    async def create(self, number: int) -> UUID:
        """Start one."""
        opening = _opening(self._tenant, number)
        terms = opening.terms
        assert terms is not None, "an opening of the bench has terms"
        opened: Any = bare.BareWorkflow.opened
        await self._client.execute_update_with_start_workflow(
            opened,
            id="opened",
            start_workflow_operation=WithStartWorkflowOperation(
                bare.BareWorkflow.run,
                opening,
                id=f"bare:{opening.escrow_id}",
                task_queue=bare.TASK_QUEUE,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary="a bench's bare workflow",
                static_details="between two parties of a bench",
                search_attributes=attributes(
                    self._tenant,
                    status="created",
                    asset=terms.asset,
                    reference=terms.reference,
                    users=(terms.buyer.user_id, terms.seller.user_id),
                ),
            ),
            result_type=EscrowOutcome,
        )
        return opening.escrow_id

    async def move(self, escrow_id: UUID, number: int, step: int) -> None:
        """Command ``step`` of ``KINDS``."""
        command = _command(number, step)
        update: Any = getattr(bare.BareWorkflow, command.command.kind)
        handle = self._client.get_workflow_handle(f"bare:{escrow_id}")
        await handle.execute_update(update, command, id=str(command.command_id), result_type=EscrowOutcome)


class Api:
    """The same by HTTP, each command under an idempotency key."""

    def __init__(self, bench: Bench) -> None:
        self._http: Http = bench.http

    async def create(self, number: int) -> UUID:
        """Open an escrow."""
        body = {
            "asset": ASSET,
            "amount": "0.001",
            "buyer": {"user_id": buyer(number)},
            "seller": {"user_id": seller(number)},
            "reference": f"bench-{token_hex(13)}",
            "expires_at": _expiry().isoformat(),
            "actor": buyer(number),
        }
        answer = json.loads(await self._http.post("/api/v1/escrows", body, key=token_hex(16)))
        return UUID(cast("dict[str, str]", answer)["escrow_id"])

    async def move(self, escrow_id: UUID, number: int, step: int) -> None:
        """Command ``step`` of ``KINDS``."""
        path = f"/api/v1/escrows/{escrow_id}/{_PATHS[step - 1]}"
        await self._http.post(path, {"actor": buyer(number)}, key=token_hex(16))


class Desk(Protocol):
    """Where the four commands go."""

    async def create(self, number: int) -> UUID:
        """Open an escrow."""

    async def move(self, escrow_id: UUID, number: int, step: int) -> None:
        """Command ``step`` of ``KINDS``."""


async def lifecycle(desk: Desk, number: int, done: Done) -> None:
    """Create, fund, approve, release; each is a quarter of an operation."""
    escrow_id = await desk.create(number)
    done(0.25)
    for step in range(1, len(KINDS)):
        await desk.move(escrow_id, number, step)
        done(0.25)


def _opening(tenant: UUID, number: int) -> OpenEscrow:
    escrow_id = new_id()
    return OpenEscrow(
        tenant_id=tenant,
        escrow_id=escrow_id,
        terms=TermsMessage(
            asset=ASSET,
            buyer=PartyMessage(user_id=buyer(number)),
            seller=PartyMessage(user_id=seller(number)),
            milestones=(MilestoneTermsMessage(title="Full amount", amount_minor=1_000),),
            expires_at=_expiry(),
            reference=f"bench-{token_hex(13)}",
        ),
        origin=_origin(number),
    )


def _command(number: int, step: int) -> EscrowCommand:
    return EscrowCommand(command_id=new_id(), command=_COMMANDS[step - 1], origin=_origin(number))


def _origin(number: int) -> OriginMessage:
    return OriginMessage(user_id=buyer(number), key_id=_KEY_ID, request_id=token_hex(16))


def _expiry() -> datetime:
    return datetime.now(UTC) + timedelta(days=30)


_KEY_ID = new_id()
