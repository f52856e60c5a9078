"""What the outside offers, chosen by the settings: the composition root's other half, beside ``worker.py``.

A setting at fault is named, and ends the process with status 2.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.alerts.sending import Senders
from activities.chain.desk import Desk
from activities.chain.settling import Tokens
from activities.ports import Outward, Publisher
from activities.prices.desk import PriceDesk
from activities.vendors.callback import CallbackClient
from activities.vendors.chains import chain_desks
from activities.vendors.mailbox import LocalCallback, LocalMailbox, LocalSms
from activities.vendors.nats import NatsPublisher
from activities.vendors.outward import OutwardClient
from activities.vendors.senders import mail_sender, sms_sender
from activities.vendors.sources import price_desk
from domain.webhooks.addresses import Reach
from kit.chains import ChainsUnusable, read_chains
from kit.pricing import PricesUnusable, manual_only, read_prices
from kit.settings import EXIT_CONFIGURATION, WorkerSettings


def create_publisher(settings: WorkerSettings) -> Publisher | None:
    """The broker that the settings name, if they name one. It need not be there yet."""
    if settings.nats_url is None:
        return None
    return NatsPublisher(
        [url.strip() for url in settings.nats_url.split(",")],
        stream=settings.nats_stream,
        prefix=settings.nats_subject_prefix,
        window_seconds=settings.nats_duplicate_window_seconds,
        tls=ssl.create_default_context(cafile=settings.nats_ca_file) if "tls://" in settings.nats_url else None,
    )


def create_price_desk(settings: WorkerSettings) -> PriceDesk:
    """Whom to ask for prices: what PRICES_FILE says, else the operator's own file, else nobody."""
    try:
        if settings.prices_file is not None:
            return price_desk(read_prices(settings.prices_file))
        manual = settings.prices_manual_file
        return PriceDesk() if manual is None else price_desk(manual_only(manual))
    except PricesUnusable as error:
        print(f"configuration: PRICES_FILE {error}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CONFIGURATION)


def create_chains(settings: WorkerSettings, engine: AsyncEngine) -> Mapping[str, Desk]:
    """The chains that CHAINS_FILE says, through their providers; without a file none. ``engine`` sees every tenant."""
    try:
        return {} if settings.chains_file is None else chain_desks(read_chains(settings.chains_file), engine)
    except ChainsUnusable as error:
        print(f"configuration: CHAINS_FILE {error}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CONFIGURATION)


def chain_tokens(settings: WorkerSettings) -> Tokens:
    """What the tokens of chains are here: what CHAINS_FILE says, without one nothing."""
    if settings.chains_file is None:
        return {}
    try:
        chains = read_chains(settings.chains_file).chains
    except ChainsUnusable as error:
        print(f"configuration: CHAINS_FILE {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CONFIGURATION) from None
    return {name: chain.tokens for name, chain in chains.items() if chain.kind == "evm"}


def create_outward(settings: WorkerSettings) -> OutwardClient:
    """The door to strangers' URLs."""
    try:
        return OutwardClient(allow=Reach.parse(settings.outward_allow))
    except ValueError as error:
        print(f"configuration: OUTWARD_ALLOW {error}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CONFIGURATION)


def local_senders(engine: AsyncEngine) -> Senders:
    """The local mailbox for every channel; ``engine`` sees every tenant."""
    return Senders(LocalMailbox(engine), LocalSms(engine), LocalCallback(engine))


def create_senders(settings: WorkerSettings, engine: AsyncEngine, outward: Outward) -> Senders:
    """Mail and text messages through the accounts that the settings name, into the local mailbox without one; callbacks
    through the door to strangers' URLs."""
    local = local_senders(engine)
    mail, sms = mail_sender(settings.sendgrid), sms_sender(settings.twilio)
    return Senders(mail or local.mail, sms or local.sms, CallbackClient(outward))
