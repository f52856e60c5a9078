"""Deposits and withdrawals on accounts that no escrow touches; some carry the outside's reference, and some twice."""

from __future__ import annotations

import asyncio
import random

from tests.soak.client import Client
from tests.soak.model import major
from tests.soak.stories import SCALES, Record

SAVERS = 10
ASSET = "USDC"
AMOUNT_MAX = 50_000_000


async def save(number: int, client: Client, record: Record, seed: str, *, pause_seconds_max: float) -> None:
    """One saver's doings. A withdrawal may be refused for want of money, and then has no effect."""
    chance = random.Random(f"{seed}:saver:{number}")
    account = f"saver-{number % SAVERS}"
    for step in range(4):
        verb = chance.choice(("deposits", "deposits", "withdrawals"))
        amount = chance.randint(1, AMOUNT_MAX)
        name = f"{seed}-s{number}-{step}"
        body = {"asset": ASSET, "amount": major(amount, SCALES[ASSET])}
        if chance.random() < 0.5:
            body["reference"] = name
        # The outside may tell of one movement under two keys; its reference makes it one.
        keys = [name, f"{name}-again"] if "reference" in body and chance.random() < 0.4 else [name]
        answers = await asyncio.gather(*(client.post(key, f"/accounts/{account}/{verb}", body) for key in keys))
        for answer in answers:
            if answer.ok:
                signed = amount if verb == "deposits" else -amount
                record.transfers[answer.json["transaction_id"]] = (account, ASSET, signed)
            elif answer.code != "insufficient_funds" or verb == "deposits":
                record.surprises.append(f"{name} {verb}: {answer.code}")
        await asyncio.sleep(chance.uniform(0, pause_seconds_max))
