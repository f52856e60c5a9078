from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    SchedulePolicy,
    ScheduleSpec,
)
from temporalio.common import SearchAttributeKey

from db.ids import new_id
from tools.local.registration import RegistrationError, reconcile_schedules, register_search_attributes


def every(hours: int, *, argument: str = "x") -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow("Sweep", argument, id="sweep", task_queue="holdfast"),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(hours=hours))]),
        policy=SchedulePolicy(catchup_window=timedelta(hours=1)),
    )


async def test_attributes_are_added_once(temporal_client: Client) -> None:
    name = f"Word{new_id().hex[-8:]}"
    assert await register_search_attributes(temporal_client, [SearchAttributeKey.for_keyword(name)]) == (name,)
    assert await register_search_attributes(temporal_client, [SearchAttributeKey.for_keyword(name)]) == ()
    with pytest.raises(RegistrationError, match=name):
        await register_search_attributes(temporal_client, [SearchAttributeKey.for_int(name)])


async def test_schedules_become_what_is_declared(temporal_client: Client) -> None:
    stranger = f"theirs-{new_id()}"
    await temporal_client.create_schedule(stranger, every(1))

    first = await reconcile_schedules(temporal_client, {"holdfast:a": every(1), "holdfast:b": every(1)})
    assert set(first.created) == {"holdfast:a", "holdfast:b"}

    unchanged = await reconcile_schedules(temporal_client, {"holdfast:a": every(1), "holdfast:b": every(1)})
    assert (unchanged.created, unchanged.updated, unchanged.deleted) == ((), (), ())

    changed = await reconcile_schedules(temporal_client, {"holdfast:a": every(2)})
    assert (changed.created, changed.updated, changed.deleted) == ((), ("holdfast:a",), ("holdfast:b",))

    description = await temporal_client.get_schedule_handle("holdfast:a").describe()
    assert description.schedule.spec.intervals[0].every == timedelta(hours=2)
    await temporal_client.get_schedule_handle(stranger).describe()

    await reconcile_schedules(temporal_client, {})
    await temporal_client.get_schedule_handle(stranger).delete()


async def test_an_operators_pause_is_kept(temporal_client: Client) -> None:
    await reconcile_schedules(temporal_client, {"holdfast:paused": every(1)})
    handle = temporal_client.get_schedule_handle("holdfast:paused")
    await handle.pause(note="maintenance")

    same = await reconcile_schedules(temporal_client, {"holdfast:paused": every(1)})
    assert same.updated == ()
    changed = await reconcile_schedules(temporal_client, {"holdfast:paused": every(1, argument="y")})
    assert changed.updated == ("holdfast:paused",)

    state = (await handle.describe()).schedule.state
    assert (state.paused, state.note) == (True, "maintenance")
    await reconcile_schedules(temporal_client, {})


async def test_ids_must_be_ours(temporal_client: Client) -> None:
    with pytest.raises(RegistrationError, match="nightly"):
        await reconcile_schedules(temporal_client, {"nightly": every(1)})
