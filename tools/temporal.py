"""The Temporal client of the short-lived commands."""

from __future__ import annotations

import asyncio

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from kit import temporal
from tools.local.process import StackError
from tools.settings import TemporalSettings

CONNECT_LIMIT_SECONDS = 30.0
PAUSE_SECONDS = 0.5


async def connect(settings: TemporalSettings) -> Client:
    """A client of a namespace that exists, waiting a while for a server or a namespace that is just being made."""
    failure: Exception | None = None
    try:
        async with asyncio.timeout(CONNECT_LIMIT_SECONDS):
            while True:
                try:
                    client = await temporal.connect(settings.temporal_address, settings.temporal_namespace)
                    request = DescribeNamespaceRequest(namespace=settings.temporal_namespace)
                    await client.workflow_service.describe_namespace(request)
                except (RuntimeError, RPCError) as error:
                    failure = error
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    return client
    except TimeoutError:
        if isinstance(failure, RPCError) and failure.status == RPCStatusCode.NOT_FOUND:
            raise StackError(f"TEMPORAL_NAMESPACE: there is no {settings.temporal_namespace!r}") from failure
        where = settings.temporal_address
        raise StackError(
            f"TEMPORAL_ADDRESS: no Temporal server answers at {where} ({failure or 'timeout'})"
        ) from failure
