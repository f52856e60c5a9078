"""The Temporal client as every process of ours opens it."""

from __future__ import annotations

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

DEPLOYMENT_NAME = "holdfast"


async def connect(address: str, namespace: str = "default", *, lazy: bool = False) -> Client:
    """A client that encodes messages as pydantic JSON. ``lazy`` connects on first use, for a process that must start
    while Temporal is down."""
    return await Client.connect(address, namespace=namespace, data_converter=pydantic_data_converter, lazy=lazy)
