"""The lives that escrows lead during a soak: each a client's script with a chance of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.soak.client import Answer, Client
from tests.soak.model import Escrow, Milestone, fee, major

SCALES = {"USDC": 6, "USDT": 6, "ETH": 18}
BUYERS, SELLERS, ARBITERS = 12, 12, 4
OPENINGS_MAX = 8
OK = frozenset({"ok"})
CLOSED = frozenset({"escrow_closed"})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast clients act, and how soon deadlines come."""

    think_seconds_max: float
    deadline_seconds: float


@dataclass(slots=True)
class Record:
    """What all stories together asked for and were granted."""

    escrows: list[Escrow] = field(default_factory=list)
    #: Accepted deposits and withdrawals by transaction id: account, asset and signed minor units.
    transfers: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)
    races_won: list[int] = field(default_factory=list)


class Play:
    """One client and its escrow."""

    def __init__(self, number: int, client: Client, record: Record, pace: Pace, seed: str) -> None:
        self.chance = random.Random(f"{seed}:escrow:{number}")
        self.name = f"{seed}-e{number}"
        self.asset = self.chance.choice(sorted(SCALES))
        self.buyer = f"buyer-{self.chance.randrange(BUYERS)}"
        self.seller = f"seller-{self.chance.randrange(SELLERS)}"
        self.arbiter = f"arbiter-{self.chance.randrange(ARBITERS)}"
        self.pace = pace
        self.escrow: Escrow | None = None
        self.client = client
        self.record = record
        self._steps = 0

    @property
    def scale(self) -> int:
        """The decimal places of its asset."""
        return SCALES[self.asset]

    @property
    def opened(self) -> Escrow:
        """The escrow, once it is accepted."""
        assert self.escrow is not None
        return self.escrow

    def amount(self) -> int:
        """An amount in minor units."""
        return self.chance.randint(100, 10 ** (self.scale + 3))

    async def open(self, *amounts: int, deadline: str | None = None, **terms: Any) -> bool:
        """Agree on an escrow; False where its deadline had passed before it was."""
        titles = [{"title": f"part {n}", "amount": major(a, self.scale)} for n, a in enumerate(amounts, 1)]
        points = [self.chance.choice((0, 0, 25, 333)) for _ in range(2)]
        payers = ("buyer", "seller")
        body: dict[str, Any] = {
            "asset": self.asset,
            "buyer": {"user_id": self.buyer},
            "seller": {"user_id": self.seller},
            "fees": [{"basis_points": p, "paid_by": who} for p, who in zip(points, payers, strict=True) if p],
            "reference": self.name,
            "actor": self.buyer,
            **({"milestones": titles} if len(amounts) > 1 else {"amount": major(amounts[0], self.scale)}),
            **terms,
        }
        answer = await self._agree(body, deadline)
        if not answer.ok:
            return False
        policy = terms.get("approval_policy", {"roles": ["buyer"], "required": 1})
        self.escrow = Escrow(
            answer.json["escrow_id"],
            self.asset,
            self.buyer,
            self.seller,
            [Milestone(amount) for amount in amounts],
            approvers=frozenset(policy["roles"]),
            required=policy["required"],
            buyer_points=points[0],
            seller_points=points[1],
            inspected="inspection_period_seconds" in terms,
            expiring=deadline is not None,
        )
        self.record.escrows.append(self.escrow)
        return True

    async def _agree(self, body: dict[str, Any], deadline: str | None) -> Answer:
        """The answer to the opening. A deadline that passed while nobody listened is agreed on anew, a few times."""
        if deadline is None:
            return await self._post("/escrows", body, allow=OK)
        late = OK | {"deadline_not_in_future"}
        for n in range(OPENINGS_MAX):
            at = datetime.now(UTC) + timedelta(seconds=self.pace.deadline_seconds)
            anew = {deadline: at.isoformat(), "reference": f"{self.name}-{n}"}
            answer = await self._post("/escrows", body | anew, allow=late)
            if answer.ok:
                break
        return answer

    async def command(self, kind: str, role: str, *, allow: frozenset[str] = OK, **body: Any) -> bool:
        """One command of a role; whether it was accepted."""
        user = {"buyer": self.buyer, "seller": self.seller, "arbiter": self.arbiter}.get(role, role)
        said = {"actor": user, **body}
        answer = await self._post(f"/escrows/{self.opened.escrow_id}/{kind}", said, allow=allow)
        if answer.ok:
            self.opened.apply(kind, role, said, self.scale)
        return answer.ok

    async def deposit(self, amount: int, account: str | None = None) -> None:
        """Money for the buyer."""
        who = account or self.buyer
        answer = await self._post(
            f"/accounts/{who}/deposits", {"asset": self.asset, "amount": major(amount, self.scale)}, allow=OK
        )
        if answer.ok:
            self.record.transfers[answer.json["transaction_id"]] = (who, self.asset, amount)

    async def provide(self) -> None:
        """Deposit what funding everything takes."""
        escrow = self.opened
        await self.deposit(sum(m.amount + fee(m.amount, escrow.buyer_points) for m in escrow.milestones))

    async def race(self, *commands: Awaitable[bool]) -> None:
        """Commands of which exactly one can be accepted."""
        self.record.races_won.append(sum(await asyncio.gather(*commands)))

    async def think(self) -> None:
        """People take their time."""
        await asyncio.sleep(self.chance.uniform(0, self.pace.think_seconds_max))

    async def _post(self, path: str, body: dict[str, Any], *, allow: frozenset[str]) -> Answer:
        self._steps += 1
        key = f"{self.name}-{self._steps}"
        answer = await self.client.post(key, path, body)
        if answer.code not in allow:
            self.record.surprises.append(f"{key} POST {path}: {answer.code} instead of {'/'.join(sorted(allow))}")
        await self.think()
        return answer


async def plain(play: Play) -> None:
    """Opened, funded, approved, released; wrong commands in between are refused."""
    await play.open(play.amount())
    await play.command("fund", "seller", allow=frozenset({"role_not_allowed"}))
    await play.command("release", "stranger", allow=frozenset({"not_a_party"}))
    await play.provide()
    await play.command("fund", "buyer")
    await play.command("release", "buyer", allow=frozenset({"milestone_not_approved"}))
    await play.command("approvals", "buyer")
    await play.command("release", "buyer")
    await play.command("refund", "seller", allow=CLOSED)


async def in_parts(play: Play) -> None:
    """Several milestones that go their own ways: released in parts, refunded, left open."""
    amounts = [play.amount() for _ in range(play.chance.randint(2, 4))]
    await play.open(*amounts)
    await play.provide()
    await play.command("fund", "buyer", milestones=[1])
    await play.command("fund", "buyer")
    await play.command("approvals", "buyer", milestones=[1, 2])
    part = major(max(1, amounts[0] // 3), play.scale)
    await play.command("release", "buyer", milestones=[1], amount=part)
    await play.command("release", "seller", milestones=[1], amount=part)
    await play.command("refund", "seller", milestones=[2], amount=major(max(1, amounts[1] // 7), play.scale))
    await play.command("release", "buyer", milestones=[2])
    if play.chance.random() < 0.7:
        await play.command("release", "buyer", milestones=[1])
        await play.command("refund", "seller", allow=OK | CLOSED)


async def disputed(play: Play) -> None:
    """A dispute that the arbiter ends by a split, or that stays."""
    amount = play.amount()
    await play.open(amount, arbiter={"user_id": play.arbiter})
    await play.provide()
    await play.command("fund", "buyer")
    if play.chance.random() < 0.5:
        await play.command("approvals", "buyer")
    await play.command("dispute", play.chance.choice(("buyer", "seller")), reason="not as agreed")
    await play.command("approvals", "buyer", allow=frozenset({"milestone_disputed"}))
    if play.chance.random() < 0.75:
        share = play.chance.randint(0, amount)
        to_seller, to_buyer = major(share, play.scale), major(amount - share, play.scale)
        await play.command("resolution", "arbiter", to_seller=to_seller, to_buyer=to_buyer)


async def conceded(play: Play) -> None:
    """A dispute without an arbiter: buyer and seller give in at once, and one of them is heard."""
    await play.open(play.amount())
    await play.provide()
    await play.command("fund", "buyer")
    await play.command("dispute", "buyer", reason="late")
    await play.command("resolution", "arbiter", allow=frozenset({"not_a_party"}), to_seller="0", to_buyer="1")
    allow = OK | CLOSED
    await play.race(play.command("release", "buyer", allow=allow), play.command("refund", "seller", allow=allow))


async def raced(play: Play) -> None:
    """Four commands at once want all of the money; one gets it."""
    await play.open(play.amount(), approval_policy={"roles": ["buyer", "seller"], "required": 2})
    await play.provide()
    await play.command("approvals", "seller")
    await play.command("fund", "buyer")
    await play.command("approvals", "buyer")
    allow = OK | CLOSED
    await play.race(
        *(play.command("release", who, allow=allow) for who in ("buyer", "seller", "buyer")),
        play.command("refund", "seller", allow=allow),
    )


async def refunded(play: Play) -> None:
    """The seller gives up."""
    await play.open(play.amount(), play.amount())
    await play.provide()
    await play.command("fund", "buyer")
    await play.command("cancel", "buyer", allow=frozenset({"escrow_holds_money"}))
    await play.command("refund", "seller")


async def cancelled(play: Play) -> None:
    """Ended before there was money."""
    await play.open(play.amount())
    who = play.chance.choice(("buyer", "seller"))
    await play.command("cancel", who)
    await play.command("fund", "buyer", allow=CLOSED)


async def poor(play: Play) -> None:
    """A buyer who has too little at first."""
    play.buyer = f"poor-{play.name}"
    amount = play.amount()
    await play.open(amount)
    await play.deposit(amount // 2)
    await play.command("fund", "buyer", allow=frozenset({"insufficient_funds"}))
    await play.provide()
    await play.command("fund", "buyer")


async def inspected(play: Play) -> None:
    """Approved, and released by the clock unless somebody disputes in time."""
    await play.open(play.amount(), inspection_period_seconds=max(1, int(play.pace.deadline_seconds / 3)))
    await play.provide()
    await play.command("fund", "buyer")
    await play.command("approvals", "buyer")
    if play.chance.random() < 0.4:
        late = frozenset({"inspection_over", "escrow_closed"})
        await play.command("dispute", "buyer", allow=OK | late, reason="just in time")


async def expired(play: Play) -> None:
    """Funded and forgotten: the clock gives it back."""
    if not await play.open(play.amount(), play.amount(), deadline="expires_at"):
        return
    await play.provide()
    late = frozenset({"escrow_expired", "escrow_closed"})
    await play.command("fund", "buyer", allow=OK | late, milestones=[1])


async def unfunded(play: Play) -> None:
    """Never funded: the clock ends it."""
    await play.open(play.amount(), deadline="funding_deadline")


Story = Callable[[Play], Awaitable[None]]
STORIES: tuple[Story, ...] = (
    plain,
    plain,
    in_parts,
    in_parts,
    disputed,
    conceded,
    raced,
    refunded,
    cancelled,
    poor,
    inspected,
    expired,
    unfunded,
)
