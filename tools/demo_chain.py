"""The main job on a real chain, told step by step: parties use the contract, the desk follows, settles, checks margin
and alerts, and a reorganisation of forty blocks in the middle changes nothing of what was final.

Everything that is said of the desk is read from its public API; everything of the chain from the chain itself.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich.console import Console

from domain.money import format_minor
from tools.demo import DemoFailed, Desk
from tools.local.process import wait_until
from tools.onchain import DevelopmentChain, OnChainEscrows, OnChainTerms

WAIT_SECONDS = 60.0
#: The chain calls a block final when 64 are on top of it.
FINALITY_BLOCKS = 70
REORG_BLOCKS = 40
ETH = 10**18
SMALL = ETH // 10
#: Against three ether that is well, against a little more than one it is a margin call, whatever an ether costs.
BORROWED_ETH = Decimal("0.8")

#: The contract's states by the bit that it shows, as the desk calls them.
_STATES = ("created", "funded", "approved", "disputed", "completed", "refunded", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class Parties:
    """Accounts of the chain; on the desk a party's user id is its address."""

    buyer: str
    seller: str
    arbiter: str


class Story:
    """One play: the chain, the contract, and the desk that follows it."""

    def __init__(self, desk: Desk, chain: DevelopmentChain, contract: OnChainEscrows, console: Console) -> None:
        self._desk = desk
        self._chain = chain
        self._contract = contract
        self._console = console
        self._parties = Parties(*chain.accounts[1:4])
        self._address = f"buyer-{secrets.token_hex(3)}@example.com"
        self._steps = iter(range(1, 100))
        self._relayer = ""

    def play(self, chain_name: str, temporal_ui_url: str | None) -> None:
        """Tell it. Raises ``DemoFailed`` where something is not as it must be."""
        self._follow(chain_name, temporal_ui_url)
        try:
            self._open_account()
            bought = self._bought()
            disputed, waiting = self._reorganised()
            self._released(bought)
            self._settled(disputed, waiting)
            self._alerted()
            self._agree({bought: "completed", disputed: "completed", waiting: "approved"})
        finally:
            # The chain ends with the play; another one in its place would be a fork below what was final.
            self._desk.post(f"/chain/relayers/{self._relayer}/pause", {})

    def _follow(self, chain_name: str, temporal_ui_url: str | None) -> None:
        self._step(f"the contract is deployed at {self._contract.address}, and the desk is told to follow it")
        asked = {"chain": chain_name, "contract": self._contract.address, "start_block": self._contract.block}
        self._relayer = self._desk.post("/chain/relayers", asked)["relayer_id"]
        self._say(f"relayer:{self._relayer}")
        if temporal_ui_url is not None:
            self._say(f"{temporal_ui_url}/namespaces/default/workflows/relayer:{self._relayer}")
        self._until("the relayer reaches the head", lambda: self._reached(self._contract.block))

    def _open_account(self) -> None:
        self._step(f"the buyer {self._parties.buyer[:10]}… may be reached by mail, and owes nothing yet")
        self._desk.put("/margin/settings", {"escrow_collateral": "buyer"})
        contact = {"user_id": self._parties.buyer, "channel": "email", "address": self._address}
        made = self._desk.post("/alerts/contacts", contact)
        self._until("the mail with its code", lambda: bool(self._mails()))
        code = re.search(r"\b\d{6}\b", self._mails()[0]["text"])
        if code is None:
            raise DemoFailed("the mail with the code has none")
        self._desk.post(f"/alerts/contacts/{made['contact_id']}/verify", {"code": code[0]})
        self._health(0)

    def _bought(self) -> str:
        self._step("on chain: the buyer opens an escrow over 2 ETH and funds it")
        escrow = self._opened(2 * ETH)
        self._until("its events are seen", lambda: len(self._events(escrow)) == 2)
        for event in self._events(escrow):
            self._say(
                f"{event['kind']:<8} block {event['block_number']}, {event['finality']}, number {event['sequence']}"
            )
        if self._desk.get("/escrows", user=self._parties.buyer)["items"]:
            raise DemoFailed("an escrow was there before its events were final")

        self._step("the blocks become final: the escrow appears, with a workflow, and its money in the ledger's mirror")
        self._chain.mine(FINALITY_BLOCKS)
        self._until("it is funded here", lambda: self._here(escrow)["status"] == "funded")
        self._say(f"{self._here(escrow)['workflow_id']} is [bold]funded[/]")
        debt = self._worth(BORROWED_ETH)
        self._step(f"the buyer borrows {debt:,} USDC against 1 ETH of its own and the 2 ETH in escrow")
        self._health(debt)
        return escrow

    def _reorganised(self) -> tuple[str, str]:
        self._step("on chain: two more escrows are funded and final; one is then disputed, the other approved")
        disputed, waiting = self._opened(SMALL), self._opened(SMALL)
        self._chain.mine(FINALITY_BLOCKS)
        lost = [self._contract.send(self._parties.seller, "dispute", disputed, secrets.token_bytes(32))]
        self._contract.send(self._parties.buyer, "approve", waiting)
        self._chain.mine(REORG_BLOCKS - 2)
        self._until("the desk has seen all of it", lambda: self._reached(self._chain.height))
        before = {event["consumer_id"]: event["block_number"] for event in self._events(disputed)}

        self._step(f"the chain leaves its last {REORG_BLOCKS} blocks; the dispute is mined again, the approval is lost")
        self._chain.reorganise(REORG_BLOCKS, [(self._chain.raw(hash_), 7) for hash_ in lost])
        self._until(
            "the desk has gone along", lambda: (self._state()["last_reorganisation"] or {}).get("depth") == REORG_BLOCKS
        )
        self._until("the desk is at the head again", lambda: self._reached(self._chain.height))
        told = self._state()["last_reorganisation"]
        self._say(f"back to block {told['ancestor_number']}, {told['events_reverted']} events taken back")
        after = {event["consumer_id"]: event["block_number"] for event in self._events(disputed)}
        if before.keys() != after.keys() or before == after:
            raise DemoFailed("what was mined again is not known by the same ids in other blocks")
        if [event["kind"] for event in self._events(waiting)] != ["Created", "Funded"]:
            raise DemoFailed("an approval is here that the chain has lost")

        self._step("the buyer approves again")
        self._contract.send(self._parties.buyer, "approve", waiting)
        return disputed, waiting

    def _released(self, escrow: str) -> None:
        self._step("on chain: the buyer approves the first escrow and releases it; the seller withdraws")
        self._contract.send(self._parties.buyer, "approve", escrow)
        self._contract.send(self._parties.buyer, "release", escrow, 2 * ETH)
        self._contract.send(self._parties.seller, "withdraw", "0x" + 40 * "0", self._parties.seller)
        self._chain.mine(FINALITY_BLOCKS)
        self._until("it is completed here", lambda: self._here(escrow)["status"] == "completed")

    def _settled(self, disputed: str, waiting: str) -> None:
        self._step("on chain: the arbiter splits the disputed one")
        self._until("it is disputed here", lambda: self._here(disputed)["status"] == "disputed")
        self._contract.send(self._parties.arbiter, "resolve", disputed, SMALL // 4, SMALL - SMALL // 4)
        self._chain.mine(FINALITY_BLOCKS)
        self._until("it is completed here", lambda: self._here(disputed)["status"] == "completed")
        self._until("the other one is approved here", lambda: self._here(waiting)["status"] == "approved")

    def _alerted(self) -> None:
        self._step("what was released no longer secures the buyer's debt: a margin call, and a mail")
        self._until("the margin call", lambda: "margin_call" in self._margin_events())
        self._until("the mail", lambda: any("MARGIN CALL" in mail["subject"] for mail in self._mails()))
        self._say(next(mail["subject"] for mail in self._mails() if "MARGIN CALL" in mail["subject"]))

    def _agree(self, escrows: dict[str, str]) -> None:
        self._step("chain, feed, ledger and API agree")
        for escrow, wanted in escrows.items():
            bits, *_ = self._contract.call("state", escrow)
            on_chain, here = _STATES[bits.bit_length() - 1], self._here(escrow)["status"]
            if not wanted == on_chain == here:
                raise DemoFailed(f"escrow {escrow} is {on_chain} on chain and {here} here, not {wanted}")
        books, state = self._contract.books(), self._state()
        if state["cursor"]["last_sequence"] != books.sequence or state["gaps"]["blocks"]:
            raise DemoFailed(f"the chain told {books.sequence} events, the desk {state['cursor']['last_sequence']}")
        self._replay(books.sequence)
        mirrored = self._mirrored()
        if not mirrored == books.balance == books.held + books.owed:
            raise DemoFailed(f"the contract has {books.balance} wei, the ledger's mirror {mirrored}")
        if not self._desk.get("/ledger/trial-balance")["balanced"]:
            raise DemoFailed("the ledger does not balance")
        if not state["healthy"]:
            raise DemoFailed(f"the relayer is not well: {state['troubles']}")
        self._say(f"{books.sequence} events, none missing, none twice")
        self._say(f"{_ether(books.balance)} ETH are in the contract, and in the ledger's mirror of it")

    def _replay(self, count: int) -> None:
        """What the feed applied and did not take back is exactly what the chain told."""
        times: Counter[str] = Counter()
        after = 0
        while items := self._desk.get("/events", topic="settlement.events.v1", after=after, limit=200)["items"]:
            after = items[-1]["position"]
            for event in items:
                step = _STEPS.get(event["type"], 0) if event["subject"] == f"relayer:{self._relayer}" else 0
                if step:
                    times[event["data"]["consumer_id"]] += step
        stands = {consumer_id for consumer_id, net in times.items() if net}
        if stands != {event["consumer_id"] for event in self._events()} or len(stands) != count:
            raise DemoFailed("the feed does not come to what the chain told")
        if set(times.values()) - {0, 1}:
            raise DemoFailed("the feed applied an event twice")

    def _opened(self, amount: int) -> str:
        parties = self._parties
        terms = OnChainTerms(parties.buyer, parties.seller, parties.arbiter, amount=amount)
        escrow = self._contract.create(parties.buyer, terms)
        self._contract.send(parties.buyer, "fund", escrow, value=amount)
        return escrow

    def _health(self, debt: int) -> None:
        positions = {"collateral_positions": {"ETH": 1}, "borrow_positions": {"USDC": debt} if debt else {}}
        found = self._desk.post("/margin/health", {"user_id": self._parties.buyer, **positions})
        self._say(f"margin: {found['status']}, health {found['health_score'] or 'without debt'}")

    def _worth(self, ether: Decimal) -> int:
        """So much ether in whole USDC, at the desk's prices."""
        dollars, coin = (Decimal(self._desk.get(f"/prices/{asset}")["mid"]) for asset in ("ETH", "USDC"))
        return int(ether * dollars / coin)

    def _state(self) -> Any:
        return self._desk.get(f"/chain/relayers/{self._relayer}")

    def _reached(self, block: int) -> bool:
        return int(self._state()["cursor"]["block_number"]) >= block

    def _events(self, escrow: str | None = None) -> list[Any]:
        """What the desk has of the contract, or of one escrow, in the chain's order."""
        asked = {"relayer_id": self._relayer, "limit": 200} | ({"subject": escrow} if escrow else {})
        found: list[Any] = self._desk.get("/chain/events", **asked)["items"]
        return found[::-1]

    def _here(self, escrow: str) -> Any:
        """The escrow on the desk that follows one on chain; raises ``DemoFailed`` where there is none yet."""
        for event in self._events(escrow):
            if event["escrow_id"] is not None:
                return self._desk.get(f"/escrows/{event['escrow_id']}")
        return {"status": None}

    def _mirrored(self) -> int:
        """What the ledger says that the contract has, in wei."""
        account = f"system:chain:{self._relayer}"
        (balance,) = self._desk.get(f"/accounts/{account}/balances", asset="ETH")["items"]
        return -int(Decimal(balance["available"]).scaleb(18))

    def _margin_events(self) -> list[str]:
        found = self._desk.get("/margin/events", user_id=self._parties.buyer)["items"]
        return [event["event_type"] for event in found]

    def _mails(self) -> list[Any]:
        """What came to the buyer, the newest first."""
        found: list[Any] = self._desk.get("/alerts/mailbox", address=self._address)["items"]
        return found

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        if not wait_until(holds, limit_seconds=WAIT_SECONDS, pause_seconds=0.1):
            raise DemoFailed(f"{what}: it did not come within {WAIT_SECONDS:g} seconds")

    def _step(self, text: str) -> None:
        self._console.print(f"[bold]{next(self._steps):>2}.[/] {text}")

    def _say(self, text: str) -> None:
        self._console.print(f"   {text}")


_STEPS = {"chain.event_applied": 1, "chain.event_reverted": -1}


def _ether(wei: int) -> str:
    return format_minor(wei, 18).rstrip("0").rstrip(".")
