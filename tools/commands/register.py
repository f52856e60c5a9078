"""`register`: tell the Temporal server our search attributes and schedules."""

from __future__ import annotations

import argparse
import asyncio

from pydantic import Field

from tools.commands.console import say
from tools.local.registration import reconcile_schedules, register_search_attributes
from tools.settings import TemporalSettings, load
from tools.temporal import connect
from workflows.schedules import PRICE_REFRESH_SECONDS, schedules
from workflows.search import SEARCH_ATTRIBUTES


class ScheduleSettings(TemporalSettings):
    """What schedules depend on."""

    price_refresh_seconds: int = Field(default=PRICE_REFRESH_SECONDS, ge=1, le=3_600)


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    """Do it; the exit status."""
    asyncio.run(_register(load(ScheduleSettings)))
    return 0


async def _register(settings: ScheduleSettings) -> None:
    client = await connect(settings)
    added = await register_search_attributes(client, SEARCH_ATTRIBUTES)
    say(f"search attributes: {', '.join(added) or 'nothing'} added")
    declared = schedules(settings.temporal_task_queue, price_refresh_seconds=settings.price_refresh_seconds)
    done = await reconcile_schedules(client, declared)
    say(f"schedules: {len(done.created)} created, {len(done.updated)} updated, {len(done.deleted)} deleted")
