"""How the API reaches the workflows of escrows, transfers, reconciliations and prices."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from domain.ids import (
    PLATFORM_TENANT,
    chain_workflow_id,
    escrow_workflow_id,
    price_refresh_workflow_id,
    reconciliation_workflow_id,
    transfer_workflow_id,
)
from workflows.caller import QUERY_LIMIT, Caller
from workflows.escrow import EscrowCommand, EscrowOutcome, EscrowWorkflow, OpenEscrow, TermsMessage, Waiting
from workflows.ledger import TransferOutcome, TransferRequest, TransferWorkflow
from workflows.limits import TASK_TIMEOUT
from workflows.prices import REFRESH_LIMIT, PriceRefreshWorkflow, RefreshOutcome, RefreshPrices
from workflows.reconciliation import RUN_LIMIT, ReconcileTenant, ReconciliationWorkflow
from workflows.search import attributes
from workflows.transfers import (
    ChainOutcome,
    ChainRequest,
    OpenPendingTransfer,
    PendingOutcome,
    PendingTransferWorkflow,
    TransferChainWorkflow,
    TransferCommand,
)


class EscrowClient(Caller):
    """Opens escrows and carries their commands to their workflows."""

    async def open(self, opening: OpenEscrow, *, summary: str, details: str | None = None) -> EscrowOutcome:
        """Start the escrow's workflow and wait until the escrow is recorded. The same id opens it once."""
        answer = await self._opened(
            EscrowWorkflow.opened,
            "opened",
            lambda: self._start(opening, summary=summary, details=details),
            EscrowOutcome,
        )
        return cast("EscrowOutcome", answer)

    async def command(
        self, tenant_id: UUID, escrow_id: UUID, command: EscrowCommand, *, attempt_id: UUID | None = None
    ) -> EscrowOutcome:
        """Have a command judged and carried out. The same ``command_id`` has one effect and one answer.

        A recorded escrow whose workflow is gone (closed and past its retention, or lost) gets a new run, which loads
        it from Postgres; so the rules always answer. ``attempt_id``, fresh, comes with a repeated command: where the
        earlier attempt ended in a fault, whose outcome the server keeps under the command's id, it is tried anew.
        """
        resumption = OpenEscrow(tenant_id=tenant_id, escrow_id=escrow_id)
        return await self._command(
            escrow_workflow_id(escrow_id),
            getattr(EscrowWorkflow, command.command.kind),
            command,
            command.command_id,
            attempt_id,
            lambda: self._start(resumption, summary="resumed from the database"),
            EscrowOutcome,
        )

    async def reload(self, escrow_id: UUID) -> None:
        """Have the escrow's run, if there is one, load what is recorded: it may not know of a command that took effect,
        where the server died before it heard of it."""
        async with self._answered():
            handle = self._client.get_workflow_handle(escrow_workflow_id(escrow_id))
            try:
                await handle.signal(EscrowWorkflow.reload)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise

    async def waiting(self, escrow_id: UUID) -> Waiting | None:
        """What the escrow's workflow says it waits for; None when there is no workflow to ask."""
        async with self._answered():
            handle = self._client.get_workflow_handle(escrow_workflow_id(escrow_id))
            try:
                return await handle.query(EscrowWorkflow.waiting, rpc_timeout=QUERY_LIMIT)
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise

    def _start(
        self, opening: OpenEscrow, *, summary: str, details: str | None = None
    ) -> WithStartWorkflowOperation[EscrowWorkflow, EscrowOutcome]:
        terms = opening.terms
        users = () if terms is None else tuple(p.user_id for p in (terms.buyer, terms.seller, terms.arbiter) if p)
        return WithStartWorkflowOperation(
            EscrowWorkflow.run,
            opening,
            id=escrow_workflow_id(opening.escrow_id),
            task_queue=self._task_queue,
            task_timeout=TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=summary,
            static_details=details,
            search_attributes=attributes(
                opening.tenant_id,
                status="created",
                asset=None if terms is None else terms.asset,
                reference=None if terms is None else _known_as(terms),
                users=users,
            ),
        )


def _known_as(terms: TermsMessage) -> str | None:
    """By what an operator finds an escrow: the client's reference, or the id on its chain."""
    return terms.reference or (None if terms.custody is None else terms.custody.onchain_id)


class TransferClient(Caller):
    """Runs deposits, withdrawals, transfers and reversals; opens and resolves transfers in two phases."""

    async def transfer(self, request: TransferRequest, *, summary: str) -> TransferOutcome:
        """Have a transfer booked and wait for it. The same ``transfer_id`` is booked once."""
        return await self._run(
            TransferWorkflow.run,
            request,
            TransferOutcome,
            id=transfer_workflow_id(request.transfer_id),
            summary=summary,
            search_attributes=attributes(
                request.tenant_id,
                asset=request.asset,
                reference=request.reference,
                users=tuple(user for user in (request.account, request.counterparty) if user is not None),
            ),
        )

    async def chain(self, request: ChainRequest, *, summary: str) -> ChainOutcome:
        """Have linked transfers booked, all or none, and wait for it. The same ``chain_id`` is booked once."""
        return await self._run(
            TransferChainWorkflow.run,
            request,
            ChainOutcome,
            id=chain_workflow_id(request.chain_id),
            summary=summary,
            search_attributes=attributes(request.tenant_id, reference=request.reference),
        )

    async def open(self, opening: OpenPendingTransfer, *, summary: str) -> PendingOutcome:
        """Start the workflow of a transfer in two phases and wait until its money is set apart. The same id, once."""
        answer = await self._opened(
            PendingTransferWorkflow.opened, "opened", lambda: self._start(opening, summary=summary), PendingOutcome
        )
        return cast("PendingOutcome", answer)

    async def resolve(
        self, tenant_id: UUID, transfer_id: UUID, command: TransferCommand, *, attempt_id: UUID | None = None
    ) -> PendingOutcome:
        """Have a pending transfer posted or voided, as ``EscrowClient.command`` has commands carried out."""
        resumption = OpenPendingTransfer(tenant_id=tenant_id, transfer_id=transfer_id)
        return await self._command(
            transfer_workflow_id(transfer_id),
            getattr(PendingTransferWorkflow, command.command.kind),
            command,
            command.command_id,
            attempt_id,
            lambda: self._start(resumption, summary="resumed from the database"),
            PendingOutcome,
        )

    def _start(
        self, opening: OpenPendingTransfer, *, summary: str
    ) -> WithStartWorkflowOperation[PendingTransferWorkflow, PendingOutcome]:
        terms = opening.terms
        return WithStartWorkflowOperation(
            PendingTransferWorkflow.run,
            opening,
            id=transfer_workflow_id(opening.transfer_id),
            task_queue=self._task_queue,
            task_timeout=TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=summary,
            search_attributes=attributes(
                opening.tenant_id,
                status="PENDING",
                asset=None if terms is None else terms.asset,
                reference=None if terms is None else terms.reference,
                users=() if terms is None else (terms.source, terms.target),
            ),
        )


class ReconciliationClient(Caller):
    """Has a tenant's books compared."""

    async def start(self, request: ReconcileTenant, *, summary: str) -> None:
        """Start a run and wait until it is recorded. The same ``run_id`` is one run."""
        await self._opened(
            ReconciliationWorkflow.begun,
            "begun",
            lambda: WithStartWorkflowOperation(
                ReconciliationWorkflow.run,
                request,
                id=reconciliation_workflow_id(request.tenant_id, request.run_id),
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                execution_timeout=RUN_LIMIT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=summary,
                search_attributes=attributes(request.tenant_id),
            ),
            None,
        )


class PriceClient(Caller):
    """Has prices refreshed on demand."""

    async def refresh(self, refresh_id: UUID, request: RefreshPrices, *, summary: str) -> RefreshOutcome:
        """Have every source asked now, and wait for what comes of it. The same ``refresh_id`` is one refresh."""
        return await self._run(
            PriceRefreshWorkflow.run,
            request,
            RefreshOutcome,
            id=price_refresh_workflow_id(refresh_id),
            summary=summary,
            search_attributes=attributes(PLATFORM_TENANT),
            limit=REFRESH_LIMIT,
        )
