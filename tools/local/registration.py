"""What the Temporal server must know before a worker starts: search attributes, and the schedules declared in code."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from tools.local.process import StackError

SCHEDULE_PREFIX = "holdfast:"
DIGEST_MEMO = "holdfast-declaration"
VISIBLE_LIMIT_SECONDS = 20.0


class RegistrationError(StackError):
    """The Temporal server cannot take our search attributes or schedules."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What had to be done, by schedule id."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


async def register_search_attributes(client: Client, keys: Iterable[SearchAttributeKey[Any]]) -> tuple[str, ...]:
    """Add the attributes that are missing and wait until the server knows them; the names added.

    An attribute that exists with another type is an error: the server cannot change it.
    """
    wanted = {key.name: IndexedValueType.ValueType(int(key.indexed_value_type)) for key in keys}
    known = await _known_attributes(client)
    clashes = [name for name, kind in wanted.items() if known.get(name, kind) != kind]
    if clashes:
        raise RegistrationError(f"search attributes exist with another type: {', '.join(clashes)}")
    missing = {name: kind for name, kind in wanted.items() if name not in known}
    if not missing:
        return ()
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        # Two processes registering at once: the other one was faster.
        if error.status != RPCStatusCode.ALREADY_EXISTS:
            raise
    async with asyncio.timeout(VISIBLE_LIMIT_SECONDS):
        while not missing.keys() <= (await _known_attributes(client)).keys():  # noqa: ASYNC110 - nothing to wait on
            await asyncio.sleep(0.1)
    return tuple(missing)


async def _known_attributes(client: Client) -> Mapping[str, int]:
    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return answer.custom_attributes


async def reconcile_schedules(client: Client, declared: Mapping[str, Schedule]) -> Reconciled:
    """Make the server's schedules of ours equal to `declared`, by id; a pause stays as the operator left it.

    Ids begin with `holdfast:`; schedules of other people are not touched.
    """
    strangers = [name for name in declared if not name.startswith(SCHEDULE_PREFIX)]
    if strangers:
        raise RegistrationError(f"schedule ids must begin with {SCHEDULE_PREFIX}: {', '.join(strangers)}")
    present = {entry.id async for entry in await client.list_schedules() if entry.id.startswith(SCHEDULE_PREFIX)}
    created, updated = [], []
    for name, schedule in declared.items():
        marked = _marked(schedule)
        # The list may lag behind: an id that it does not show can exist all the same.
        if name not in present and await _create(client, name, marked):
            created.append(name)
        elif await _declaration(client, name) != _digest(schedule):
            await _update(client, name, marked)
            updated.append(name)
    orphans = sorted(present - declared.keys())
    for name in orphans:
        await _delete(client, name)
    return Reconciled(tuple(created), tuple(updated), tuple(orphans))


def _digest(schedule: Schedule) -> str:
    """A hash over everything declared: the server's own form of a schedule is not comparable to ours."""
    text = json.dumps(dataclasses.asdict(schedule), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _marked(schedule: Schedule) -> Schedule:
    """The schedule with its digest in the memo of the runs it starts, which no operator's pause overwrites."""
    action = schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow):
        raise RegistrationError("a schedule must start a workflow")
    marked = copy.copy(action)
    marked.memo = {**(action.memo or {}), DIGEST_MEMO: _digest(schedule)}
    return dataclasses.replace(schedule, action=marked)


async def _create(client: Client, name: str, schedule: Schedule) -> bool:
    try:
        await client.create_schedule(name, schedule)
    except ScheduleAlreadyRunningError:
        return False
    return True


async def _declaration(client: Client, name: str) -> str | None:
    description = await client.get_schedule_handle(name).describe()
    action = description.schedule.action
    memo = action.memo if isinstance(action, ScheduleActionStartWorkflow) else None
    if not memo or DIGEST_MEMO not in memo:
        return None
    values: Sequence[object] = await client.data_converter.decode([memo[DIGEST_MEMO]])
    return str(values[0])


async def _update(client: Client, name: str, schedule: Schedule) -> None:
    def keeping_pause(found: ScheduleUpdateInput) -> ScheduleUpdate:
        return ScheduleUpdate(dataclasses.replace(schedule, state=found.description.schedule.state))

    await client.get_schedule_handle(name).update(keeping_pause)


async def _delete(client: Client, name: str) -> None:
    try:
        await client.get_schedule_handle(name).delete()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
