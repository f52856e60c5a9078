"""One look of a watch: everything that is overdue, batch by batch, gets its workflow back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

from temporalio import activity

#: A run that is alive acts within seconds of what is due; the margin keeps a watch from disturbing it.
OVERDUE_AFTER = timedelta(minutes=2)
BATCH = 200
#: A freeze leaves things overdue whose workflows are well: a look has to get past them.
LOOK_MAX = 20_000
TASK_TIMEOUT = timedelta(seconds=3)

#: Tenant and id of what is overdue behind an id, in the order of the ids, at most ``BATCH`` of them.
Overdue = Callable[[UUID | None], Awaitable[Sequence[tuple[UUID, UUID]]]]
Resume = Callable[[UUID, UUID], Awaitable[object]]


async def resume_each(overdue: Overdue, resume: Resume) -> int:
    """Resume what is overdue and answer how much it was. An attempt goes on where the one before it stopped."""
    details = activity.info().heartbeat_details
    found, after = (int(details[0]), UUID(details[1])) if details else (0, None)
    while found < LOOK_MAX:
        batch = await overdue(after)
        for tenant_id, entity_id in batch:
            await resume(tenant_id, entity_id)
            found, after = found + 1, entity_id
            activity.heartbeat(found, str(after))
        if len(batch) < BATCH:
            break
    return found
