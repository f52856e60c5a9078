"""A house with accounts at both vendors, whose doubles stand on real sockets: database, queue, relay and API."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from activities.alerts.sending import Senders
from activities.ports import Outward
from activities.vendors.callback import CallbackClient
from activities.vendors.outward import OutwardClient
from activities.vendors.sendgrid import SendGridMail
from activities.vendors.twilio import TwilioSms
from api.main import create_app
from api.serving import listen, server_of
from crew import create_relay, create_worker
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from kit.sending import SENDGRID_RECEIPTS, TWILIO_RECEIPTS, SendGridAccount, TwilioAccount
from kit.settings import ApiSettings
from tests.alerting import Alerting
from tests.api.caller import Caller
from tests.databases import migrated_database
from tests.outward import HERE
from tests.vendors.mailer import API_KEY, SendGrid
from tests.vendors.server import vendor
from tests.vendors.texter import ACCOUNT, NUMBER, TOKEN, Twilio
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres


@dataclass(frozen=True)
class AlertHouse:
    """What a test of alerts works with; ``api`` is where vendors report to."""

    queue: str
    url: str
    client: Client
    tenants: AsyncEngine
    engine: AsyncEngine
    alerting: Alerting
    service: Caller
    sendgrid: SendGrid
    twilio: Twilio
    api: str

    @property
    def mail_receipts(self) -> str:
        return self.api + SENDGRID_RECEIPTS

    @property
    def replies(self) -> str:
        return f"{self.api}{TWILIO_RECEIPTS}/replies"


def senders(sendgrid_url: str, twilio_url: str, outward: Outward, report_to: str | None) -> Senders:
    """Both vendors' real SDKs, on the doubles, and callbacks through the one door outwards."""
    mail = SendGridMail(SendGridAccount(API_KEY, "Desk <desk@example.com>", url=sendgrid_url, timeout_seconds=3.0))
    account = TwilioAccount(
        ACCOUNT, ACCOUNT, TOKEN, NUMBER, report_to=report_to, url=twilio_url, timeout_seconds=3.0, settle_seconds=0.0
    )
    return Senders(mail, TwilioSms(account), CallbackClient(outward))


@asynccontextmanager
async def alert_house(
    postgres: EmbeddedPostgres, temporal: Client, address: str, *, working: bool = True
) -> AsyncIterator[AlertHouse]:
    """The house; not ``working``: without a worker, whose part somebody else takes."""
    name = f"alerts-{new_id().hex}"
    async with AsyncExitStack() as stack:
        url = await asyncio.to_thread(stack.enter_context, migrated_database(postgres))
        tenants, engine = create_engine(url, Role.APP, pool_size=10), create_engine(url, Role.ENGINE, pool_size=8)
        for opened in (tenants, engine):
            stack.push_async_callback(opened.dispose)
        sendgrid = SendGrid(await stack.enter_async_context(vendor()))
        twilio = Twilio(await stack.enter_async_context(vendor()))
        listener = listen("127.0.0.1", 0)
        # Twilio signs the address too, so it is known before anything is served.
        api = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = ApiSettings(
            database_url=url,
            temporal_address=address,
            temporal_task_queue=name,
            database_pool_size=5,
            mail_sendgrid_receipt_key=sendgrid.public_key,
            sms_twilio_auth_token=SecretStr(TOKEN),
            public_url=api,
            outward_allow="127.0.0.0/8",
        )
        app = create_app(settings)
        await stack.enter_async_context(_serving(app, listener))
        tenant = await _tenant(tenants)
        if working:
            outward = OutwardClient(allow=HERE)
            stack.push_async_callback(outward.close)
            made = senders(sendgrid.url, twilio.url, outward, api + TWILIO_RECEIPTS)
            stack.push_async_callback(made.close)
            worker = create_worker(
                temporal, name, "only", tenants=tenants, engine=engine, deployment=name, senders=made, base_url=api
            )
            await stack.enter_async_context(worker)
            await make_current(temporal, Build(name, "only"))
        relay = asyncio.create_task(create_relay(temporal, name, url, engine=engine).run())
        try:
            service = await Caller(app, tenant, tenants, None).key_for()
            yield AlertHouse(
                name, url, temporal, tenants, engine, Alerting(tenants, tenant), service, sendgrid, twilio, api
            )
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)


@asynccontextmanager
async def _serving(app: FastAPI, listener: socket.socket) -> AsyncIterator[None]:
    server = server_of(app)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - the server offers nothing to wait for
                await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task


async def _tenant(engine: AsyncEngine) -> UUID:
    made = new_id()
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=made, name="house")
    return made
