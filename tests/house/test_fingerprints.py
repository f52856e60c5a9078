"""Workflow code gives the commands that were committed, and a change of them does not go unnoticed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tools import fingerprints
from tools.commands import fingerprints as command
from tools.fingerprints import COMMITTED, of_source
from workflows.registry import WORKFLOWS

STORY = """
import asyncio
from temporalio import workflow
from temporalio.workflow import upsert_search_attributes as upsert
from workflows.steps import outlast, run_step

async def helper():
    await workflow.execute_activity("mail.send")

@workflow.defn
class Base:
    async def _inherited(self):
        await asyncio.sleep(1)

@workflow.defn(name="Story")
class StoryWorkflow(Base):
    @workflow.run
    async def run(self, order):
        self._keep(await self._step(order))
        if workflow.patched("notice"):
            await helper()
        while not self._done():
            await self._wait()
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(order)

    @workflow.update(name="pay", description="Somebody pays.")
    async def _pay(self, order):
        await asyncio.gather(*(self._step(part) for part in order))

    @workflow.signal
    def stop(self):
        self.stopped = True

    async def _step(self, order):
        await workflow.execute_local_activity_method(Steps.apply, order, summary="a step")
        return await outlast(lambda: run_step(Steps.record, order, summary="another"))

    async def _wait(self):
        try:
            await workflow.wait_condition(self._done, timeout=order.limit)
        except TimeoutError:
            await workflow.execute_child_workflow(Reminder.run, id="reminder")
            await self._inherited()

    def _keep(self, result):
        upsert([result])

    def _done(self):
        return self.stopped
"""

COMMANDS = {
    "_inherited": ["timer asyncio.sleep"],
    "_keep": ["upsert_search_attributes"],
    "_pay": ["update pay", "loop / call _step"],
    "_step": ["local activity Steps.apply", "local activity Steps.record", "outlast"],
    "_wait": ["timer wait_condition", "except / child workflow Reminder.run", "except / call _inherited"],
    "helper": ["activity 'mail.send'"],
    "run": [
        "run",
        "call _step",
        "call _keep",
        "patched 'notice'",
        "if / call helper",
        "loop / call _wait",
        "continue_as_new",
    ],
    "stop": ["signal stop"],
}

BREAKING = {
    "a timer more": ("        if workflow.patched", "        await workflow.sleep(1)\n        if workflow.patched"),
    "another activity": ("Steps.apply, order", "Steps.record, order"),
    "an update less": ('@workflow.update(name="pay", description="Somebody pays.")', "@staticmethod"),
    "an update renamed": ('name="pay"', 'name="settle"'),
    "another order": (
        'await workflow.execute_child_workflow(Reminder.run, id="reminder")\n            await self._inherited()',
        'await self._inherited()\n            await workflow.execute_child_workflow(Reminder.run, id="reminder")',
    ),
    "a condition around a command": ("upsert([result])", "if result:\n            upsert([result])"),
    "a wait that loses its limit": ("timeout=order.limit", "timeout=None"),
    "a patch retired": ('workflow.patched("notice")', "True"),
}

HARMLESS = {
    "a summary": ('summary="a step"', 'summary="one step"'),
    "a description": ("Somebody pays.", "Anybody pays."),
    "a computation": ("return self.stopped", "return bool(self.stopped)"),
    "a wait without a limit": ("(workflow.all_handlers_finished)", "(lambda: self.stopped)"),
    "started, then awaited": ("workflow.execute_local_activity_method", "workflow.start_local_activity_method"),
}


def test_workflow_code_gives_the_commands_that_were_committed() -> None:
    now = fingerprints.render(fingerprints.of_workflows(WORKFLOWS))
    changes = fingerprints.difference(COMMITTED.read_text(encoding="utf-8"), now)
    assert not changes, f"\n{changes}\n\n{fingerprints.ADVICE}"


def test_every_command_of_a_workflow_is_seen() -> None:
    assert of_source(STORY, "StoryWorkflow") == {"Story": COMMANDS}


@pytest.mark.parametrize("change", BREAKING)
def test_a_change_that_breaks_replay_is_drift(change: str) -> None:
    before, after = BREAKING[change]
    assert before in STORY
    assert of_source(STORY.replace(before, after), "StoryWorkflow") != {"Story": COMMANDS}


@pytest.mark.parametrize("change", HARMLESS)
def test_a_change_that_gives_the_same_commands_is_none(change: str) -> None:
    before, after = HARMLESS[change]
    assert before in STORY
    assert of_source(STORY.replace(before, after), "StoryWorkflow") == {"Story": COMMANDS}


def test_methods_may_change_places() -> None:
    method = STORY[STORY.index("    def _keep") : STORY.index("    def _done")]
    moved = STORY.replace(method, "").replace("    async def _step", f"{method}    async def _step")
    assert moved != STORY
    assert of_source(moved, "StoryWorkflow") == {"Story": COMMANDS}


def test_the_command_shows_drift_teaches_and_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fingerprints.json"
    file.write_text(COMMITTED.read_text(encoding="utf-8").replace('"sleep"', '"activity Other.step"'))
    assert command.run(argparse.Namespace(accept=False, file=file)) == 1
    shown = capsys.readouterr()
    assert '-   "activity Other.step"' in shown.out
    assert '+   "sleep"' in shown.out
    assert "workflow.patched" in shown.err
    assert command.run(argparse.Namespace(accept=True, file=file)) == 0
    assert command.run(argparse.Namespace(accept=False, file=file)) == 0
