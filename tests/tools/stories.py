"""Workflows for the deployment tests: one story, told differently by three builds."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

PATIENCE = timedelta(days=30)


class _Waiting:
    def __init__(self) -> None:
        self._open = False

    @workflow.signal
    def finish(self) -> None:
        self._open = True


@workflow.defn(name="Story")
class Story(_Waiting):
    """The first telling."""

    @workflow.run
    async def run(self, title: str) -> str:
        await workflow.wait_condition(lambda: self._open, timeout=PATIENCE)
        return f"{title} as first told"


@workflow.defn(name="Story")
class Retold(_Waiting):
    """Agrees with the history of the first."""

    @workflow.run
    async def run(self, title: str) -> str:
        await workflow.wait_condition(lambda: self._open, timeout=PATIENCE)
        return f"{title} retold"


@workflow.defn(name="Story")
class Rewritten(_Waiting):
    """Knows nothing of the timer that is in every earlier history."""

    @workflow.run
    async def run(self, title: str) -> str:
        await workflow.wait_condition(lambda: self._open)
        return f"{title} rewritten"
