"""Which events start or wake workflows: an entry a type, a pure function of the event."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from activities.dispatch import Listener, TenantEvent, Wake
from domain.ids import (
    BOOK_WORKFLOW_ID,
    alert_workflow_id,
    chain_settlement_workflow_id,
    margin_check_id,
    margin_check_workflow_id,
    settlement_workflow_id,
)
from workflows.alerts import AlertRun, AlertWorkflow
from workflows.book import BookRun, BookWorkflow
from workflows.chain.relayer_client import wake_relayer
from workflows.chain.settlement import ChainSettlementRun, ChainSettlementWorkflow
from workflows.margin import Cause, CheckMargin, MarginCheckWorkflow
from workflows.search import attributes
from workflows.settlement import SettlementRun, SettlementWorkflow

__all__ = ["LISTENERS", "Listener", "TenantEvent", "Wake", "margin_check"]


def _commands_received(event: TenantEvent) -> Wake:
    """Commands were taken: the tenant's workflow works off what is there, however many events say so."""
    return Wake(
        workflow=SettlementWorkflow.run,
        workflow_id=settlement_workflow_id(event.tenant_id),
        argument=SettlementRun(tenant_id=event.tenant_id),
        summary="works the tenant's settlement commands off",
        search_attributes=attributes(event.tenant_id, status="working"),
        signal="work",
    )


def _prices_ticked(event: TenantEvent) -> Wake:
    """Prices changed: the book is revalued at the newest ones, however many ticks say so."""
    return Wake(
        workflow=BookWorkflow.run,
        workflow_id=BOOK_WORKFLOW_ID,
        argument=BookRun(),
        summary="revalues every margin account at the newest prices",
        search_attributes=attributes(event.tenant_id, status="working"),
        signal="ticked",
    )


def margin_check(event: TenantEvent, user_id: str) -> Wake:
    """An event touched the money of a user who has a margin account: it is looked at once, however often the event
    comes."""
    check_id = margin_check_id(event.event_id, user_id)
    return Wake(
        workflow=MarginCheckWorkflow.run,
        workflow_id=margin_check_workflow_id(check_id),
        argument=CheckMargin(tenant_id=event.tenant_id, check_id=check_id, user_id=user_id, cause=Cause.SETTLEMENT),
        summary=f"margin check after {event.type}",
        search_attributes=attributes(event.tenant_id, users=(user_id,)),
    )


def _alert_news(event: TenantEvent) -> Wake:
    """An alert is new, or there is news of it: its workflow looks at the row, however many events say so."""
    notification_id = UUID(event.data["notification_id"])
    return Wake(
        workflow=AlertWorkflow.run,
        workflow_id=alert_workflow_id(notification_id),
        argument=AlertRun(tenant_id=event.tenant_id, notification_id=notification_id),
        summary=f"{event.data['alert_type']}, {event.data['severity']}",
        search_attributes=attributes(event.tenant_id, status=event.data["status"], users=(event.data["user_id"],)),
        signal="look",
    )


def _source_registered(event: TenantEvent) -> Wake:
    """Somebody wants a contract followed: its relayer begins."""
    return wake_relayer(event.tenant_id, event.data["relayer_id"])


def _chain_finalized(event: TenantEvent) -> Wake:
    """Events of a contract became final, or were filled in below what is: they are settled, in order."""
    relayer_id = event.data["relayer_id"]
    return Wake(
        workflow=ChainSettlementWorkflow.run,
        workflow_id=chain_settlement_workflow_id(relayer_id),
        argument=ChainSettlementRun(tenant_id=event.tenant_id, relayer_id=relayer_id),
        summary=f"settles the final events of {relayer_id}",
        search_attributes=attributes(event.tenant_id, status="working", reference=relayer_id),
        signal="settle",
    )


LISTENERS: Mapping[str, Listener] = {
    "commands.received": _commands_received,
    "prices.ticked": _prices_ticked,
    "chain.finalized": _chain_finalized,
    "chain.backfilled": _chain_finalized,
    "alert.raised": _alert_news,
    "alert.grouped": _alert_news,
    "alert.recovered": _alert_news,
    "alert.superseded": _alert_news,
    "alert.receipt": _alert_news,
    "chain.source_registered": _source_registered,
}
