"""`deploy`: make a build current, and move the runs that earlier builds left behind."""

from __future__ import annotations

import argparse
import asyncio

from kit.build import build_id
from kit.temporal import DEPLOYMENT_NAME
from tools.commands.console import say
from tools.deployment import Build, make_current, move_stranded
from tools.settings import TemporalSettings, load
from tools.temporal import connect
from workflows.registry import replayer


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument(
        "--build-id",
        default="",
        help="the build to make current (this source's by default)",
    )
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=60.0,
        help="how long to wait for a worker of it to poll",
    )
    parser.add_argument(
        "--no-other-workers",
        action="store_true",
        help="no worker of another build is left: move their runs at once",
    )


def run(options: argparse.Namespace) -> int:
    """Do it; the exit status."""
    build = Build(DEPLOYMENT_NAME, options.build_id or build_id())
    return asyncio.run(_deploy(load(TemporalSettings), build, options))


async def _deploy(settings: TemporalSettings, build: Build, options: argparse.Namespace) -> int:
    client = await connect(settings)
    await make_current(client, build, limit_seconds=options.limit_seconds)
    say(f"build {build.build_id} is current")
    moved = await move_stranded(
        client,
        build,
        replayer(client.data_converter),
        task_queue=settings.temporal_task_queue,
        served=() if options.no_other_workers else None,
    )
    counts = (len(moved.replayed), len(moved.restarted), len(moved.stuck))
    say("stranded runs: {} moved, {} started again, {} left alone".format(*counts))
    return 0
