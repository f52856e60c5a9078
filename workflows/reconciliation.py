"""Reconciliation of one tenant (``ReconciliationWorkflow``), and of all of them on a schedule."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.failures import step_failure
    from activities.reconciliation.messages import (
        AreaCompared,
        BeginReconciliation,
        CompareArea,
        FinishReconciliation,
        ReconcileTenant,
        ReconciliationOutcome,
        ReconciliationPlan,
        Sweep,
        TenantsWanted,
    )
    from activities.reconciliation.steps import ReconciliationActivities
    from domain.ids import reconciliation_workflow_id, uuid7
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT, TASK_TIMEOUT
    from workflows.search import attributes

__all__ = ["ReconcileTenant", "ReconciliationOutcome", "ReconciliationSweepWorkflow", "ReconciliationWorkflow", "Sweep"]

#: One area of one tenant: it heartbeats after every page and goes on from there in the next attempt.
AREA_TIMEOUT = timedelta(hours=2)
AREA_LIMIT = timedelta(hours=4)
HEARTBEAT_TIMEOUT = timedelta(seconds=30)
STEP_ROUND = timedelta(minutes=5)
#: A run is over within a day, or it is lost; the database gives up on it after that time, too.
RUN_LIMIT = timedelta(hours=20)

TENANTS_PER_RUN = 100
TENANTS_AT_ONCE = 4


@workflow.defn
class ReconciliationWorkflow:
    """Compares escrows, holds, transfers and balances of one tenant with the ledger, and writes what differs."""

    def __init__(self) -> None:
        self._begun = False

    @workflow.run
    async def run(self, request: ReconcileTenant) -> ReconciliationOutcome:
        """What was found. Differences are no failure of the run; a run that cannot compare fails, and says so."""
        plan = await self._begin(request)
        self._begun = True
        compared: list[AreaCompared] = []
        try:
            for area in plan.areas:
                workflow.set_current_details(_details(plan, compared, f"comparing: {area}"))
                compared.append(await self._compare(request, plan, area))
            outcome = await self._finish(request, plan, compared)
            if plan.full:
                await self._clear(request)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            failure = step_failure(error)
        else:
            workflow.set_current_details(_details(plan, compared, _told(outcome)))
            await workflow.wait_condition(workflow.all_handlers_finished)
            return outcome
        await self._finish(request, plan, compared, failure=str(failure)[:500])
        # Out here, so that the failure does not become its own cause.
        raise failure

    @workflow.update
    async def begun(self) -> None:
        """Returns once the run is recorded."""
        await workflow.wait_condition(lambda: self._begun)

    async def _begin(self, request: ReconcileTenant) -> ReconciliationPlan:
        return await workflow.execute_activity_method(
            ReconciliationActivities.begin,
            BeginReconciliation(request=request, at=workflow.now()),
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=STEP_ROUND,
            retry_policy=STEP_RETRY,
            summary="record that the run began",
        )

    async def _compare(self, request: ReconcileTenant, plan: ReconciliationPlan, area: str) -> AreaCompared:
        return await workflow.execute_activity_method(
            ReconciliationActivities.compare,
            CompareArea(request=request, plan=plan, area=area),
            start_to_close_timeout=AREA_TIMEOUT,
            schedule_to_close_timeout=AREA_LIMIT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary=f"compare {area}",
        )

    async def _finish(
        self,
        request: ReconcileTenant,
        plan: ReconciliationPlan,
        compared: list[AreaCompared],
        *,
        failure: str | None = None,
    ) -> ReconciliationOutcome:
        asked = FinishReconciliation(
            request=request, plan=plan, compared=tuple(compared), at=workflow.now(), failure=failure
        )
        return await workflow.execute_activity_method(
            ReconciliationActivities.finish,
            asked,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=STEP_ROUND,
            retry_policy=STEP_RETRY,
            summary="record what was found" if failure is None else "record why the run failed",
        )

    async def _clear(self, request: ReconcileTenant) -> None:
        await workflow.execute_activity_method(
            ReconciliationActivities.clear,
            request,
            start_to_close_timeout=AREA_TIMEOUT,
            schedule_to_close_timeout=AREA_LIMIT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="delete the sums of the run before",
        )


@workflow.defn
class ReconciliationSweepWorkflow:
    """Reconciles every tenant, a few at a time; one that fails does not keep the others waiting."""

    @workflow.run
    async def run(self, sweep: Sweep) -> Sweep:
        """How many tenants there were, and how many runs failed."""
        tenants = await workflow.execute_activity_method(
            ReconciliationActivities.tenants,
            TenantsWanted(after=sweep.after, limit=TENANTS_PER_RUN),
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=STEP_ROUND,
            retry_policy=STEP_RETRY,
            summary="list the next tenants",
        )
        done, failed = sweep.tenants, sweep.failed
        for first in range(0, len(tenants), TENANTS_AT_ONCE):
            ends = await asyncio.gather(
                *(self._reconcile(tenant, full=sweep.full) for tenant in tenants[first : first + TENANTS_AT_ONCE])
            )
            done, failed = done + len(ends), failed + ends.count(False)
            workflow.set_current_details(f"{done} tenants reconciled, {failed} runs failed")
        counted = Sweep(full=sweep.full, after=tenants[-1] if tenants else None, tenants=done, failed=failed)
        if len(tenants) == TENANTS_PER_RUN:
            workflow.continue_as_new(counted)
        return counted

    async def _reconcile(self, tenant: UUID, *, full: bool) -> bool:
        run_id = uuid7(workflow.now(), workflow.random().randbytes(10))
        try:
            await workflow.execute_child_workflow(
                ReconciliationWorkflow.run,
                ReconcileTenant(tenant_id=tenant, run_id=run_id, full=full),
                id=reconciliation_workflow_id(tenant, run_id),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                execution_timeout=RUN_LIMIT,
                task_timeout=TASK_TIMEOUT,
                static_summary="full reconciliation" if full else "reconciliation of what is new",
                search_attributes=attributes(tenant),
            )
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.error("reconciliation failed: %s", error.cause or error)
            return False
        return True


def _details(plan: ReconciliationPlan, compared: list[AreaCompared], last: str) -> str:
    """What an operator reads in the UI."""
    lines = ["everything" if plan.full else f"what is new behind transaction {plan.after_sequence}"]
    lines += [f"{each.area}: {each.checked} compared" for each in compared]
    return "\n\n".join([*lines, last])


def _told(outcome: ReconciliationOutcome) -> str:
    return (
        f"{outcome.checked} compared, {outcome.explained} differ and are explained, **{outcome.unexplained} differ and"
        f" are not**; share explained {outcome.share_explained}"
    )
