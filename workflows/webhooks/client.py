"""How the API has endpoints looked at."""

from __future__ import annotations

from uuid import UUID

from activities.dispatch import Wake
from domain.ids import webhook_workflow_id
from workflows.caller import Caller
from workflows.search import attributes
from workflows.waking import Waker
from workflows.webhooks import WebhookRun, WebhookWorkflow


def wake_endpoint(tenant_id: UUID, subscription_id: UUID) -> Wake:
    """What starts an endpoint's workflow, or wakes it: there is something to deliver."""
    return Wake(
        workflow=WebhookWorkflow.run,
        workflow_id=webhook_workflow_id(subscription_id),
        argument=WebhookRun(tenant_id=tenant_id, subscription_id=subscription_id),
        summary="delivers events to an endpoint",
        search_attributes=attributes(tenant_id, status="working"),
        signal="work",
    )


class WebhookClient(Caller):
    """Has endpoints looked at."""

    async def wake(self, tenant_id: UUID, subscription_id: UUID) -> None:
        """Have an endpoint looked at now; raises ``Unavailable``. Without it the watch comes within a minute."""
        await Waker(self._client, self._task_queue).wake(wake_endpoint(tenant_id, subscription_id))
