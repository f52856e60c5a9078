"""How long steps may take and how they are retried; every call site names one of these."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

#: A workflow task is given to another worker this long after its worker died.
TASK_TIMEOUT = timedelta(seconds=3)

#: One attempt of a database step; the database's own statement limit is shorter.
STEP_TIMEOUT = timedelta(seconds=15)

#: One round of attempts of a step. An escrow waits and begins another round; a transfer ends as unavailable.
STEP_LIMIT = timedelta(seconds=20)

#: Waits between attempts longer than this become durable timers instead of holding the worker.
LOCAL_RETRY_THRESHOLD = timedelta(seconds=10)

STEP_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=100),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=5),
    maximum_attempts=60,
)

#: A chain whose providers are away comes back; how long it is waited for is written at the call.
CHAIN_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)

#: What the clock would do to something frozen is looked at again after this pause, doubled each time up to the maximum:
#: so late, at most, it happens after the freeze was lifted.
FROZEN_PAUSE = timedelta(seconds=15)
FROZEN_PAUSE_MAX = timedelta(minutes=5)


def chain_queue(task_queue: str) -> str:
    """Where turns of relayers are taken, beside a task queue: each lasts a minute, and holds a place all the while."""
    return f"{task_queue}-chains"


def webhook_queue(task_queue: str) -> str:
    """Where turns of endpoints are taken, beside a task queue: strangers' servers hold up nothing else."""
    return f"{task_queue}-webhooks"


def backfill_queue(task_queue: str) -> str:
    """Where chunks of backfill jobs are filled, beside a task queue: a chunk waits for its turn, and for providers."""
    return f"{task_queue}-backfill"
