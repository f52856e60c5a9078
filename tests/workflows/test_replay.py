"""Workflow code still agrees with the histories that it made: those recorded, and those it makes today."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from tests.desk import Desk
from tests.histories.changed import CarelessEscrowWorkflow
from tests.histories.record import STORIES, committed, is_settled, load, play, save
from workflows.registry import FAILURE_TYPES, replayer, workflow_runner

REPLAY_LIMIT_SECONDS = 20.0
RECORDING = os.environ.get("HOLDFAST_RECORD") == "1"


async def replay(history: WorkflowHistory, with_replayer: Replayer) -> Exception | None:
    """What went wrong, if anything did."""
    assert is_settled(history), "the replayer hangs on a history that ends within a workflow task"
    async with asyncio.timeout(REPLAY_LIMIT_SECONDS):
        return (await with_replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure


@pytest.mark.parametrize("file", committed(), ids=lambda file: file.stem)
async def test_a_recorded_history_replays(file: Path) -> None:
    failure = await replay(load(file), replayer(pydantic_data_converter))
    assert failure is None, (
        f"{failure}\nWorkflow code no longer agrees with {file.name}: an escrow that is under way would be stuck."
        " Keep the old path with workflow.patched; see `python -m tools fingerprints`."
    )


@pytest.mark.parametrize("story", STORIES)
async def test_a_story_played_live_replays(story: str, desk: Desk) -> None:
    played = await play(story, desk)
    for name, history in played.items():
        assert await replay(history, replayer(pydantic_data_converter)) is None, name
        if RECORDING:
            save(name, history)
    assert sorted(played) == [file.name for file in committed(story)], "record again: see tests/histories/record.py"


async def test_a_command_more_is_noticed() -> None:
    changed = Replayer(
        workflows=[CarelessEscrowWorkflow],
        data_converter=pydantic_data_converter,
        workflow_runner=workflow_runner(),
        workflow_failure_exception_types=list(FAILURE_TYPES),
    )
    [file] = committed("happy_path")
    assert isinstance(await replay(load(file), changed), NondeterminismError)


def test_histories_name_no_machine() -> None:
    for file in committed():
        text = file.read_text(encoding="utf-8")
        assert "@" not in text, f"{file.name} holds a worker's identity"
        assert ".py" not in text, f"{file.name} holds a stack trace"
