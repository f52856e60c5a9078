"""Where the commands find what the workers are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temporalio.client import Client, Schedule
from temporalio.common import SearchAttributeKey
from temporalio.worker import Replayer

SEARCH_ATTRIBUTES: Sequence[SearchAttributeKey[Any]] = (
    SearchAttributeKey.for_keyword("Tenant"),
    SearchAttributeKey.for_keyword("Status"),
    SearchAttributeKey.for_keyword("Asset"),
    SearchAttributeKey.for_keyword("Reference"),
    SearchAttributeKey.for_keyword_list("Users"),
)
SCHEDULES: Mapping[str, Schedule] = {}


def replayer(client: Client) -> Replayer:
    """A replayer of the workflows as this source has them."""
    return Replayer(workflows=[], data_converter=client.data_converter)
