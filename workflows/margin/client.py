"""How the API has margin accounts looked at."""

from __future__ import annotations

from domain.ids import margin_check_workflow_id
from workflows.caller import Caller
from workflows.margin import CheckMargin, CheckOutcome, MarginCheckWorkflow
from workflows.search import attributes


class MarginClient(Caller):
    """Has margin accounts looked at."""

    async def check(self, request: CheckMargin, *, summary: str) -> CheckOutcome:
        """Look at an account and wait for what was found. The same ``check_id`` looks once."""
        return await self._run(
            MarginCheckWorkflow.run,
            request,
            CheckOutcome,
            id=margin_check_workflow_id(request.check_id),
            summary=summary,
            search_attributes=attributes(request.tenant_id, users=(request.user_id,)),
        )
