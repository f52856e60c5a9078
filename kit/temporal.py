"""The Temporal client as every process of ours opens it."""

from __future__ import annotations

import logging

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

DEPLOYMENT_NAME = "holdfast"


def forward_core_logs() -> None:
    """Send what the SDK's core has to say through the process's own logs. Once, before the first client."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporal.core"))
    wanted = LoggingConfig(filter=TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding)
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=wanted)))


async def connect(address: str, namespace: str = "default", *, lazy: bool = False) -> Client:
    """A client that encodes messages as pydantic JSON. ``lazy`` connects on first use, for a process that must start
    while Temporal is down."""
    return await Client.connect(address, namespace=namespace, data_converter=pydantic_data_converter, lazy=lazy)
