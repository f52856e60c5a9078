"""Where a chain ends: the highest block for which enough providers vouch."""

from __future__ import annotations

import asyncio
from typing import Final

from activities.chain import reading
from activities.chain.pool import Member, Pool
from activities.chain.ports import ChainFault, Lane
from activities.chain.quorum import Inquiry
from domain.chain import Block, Head
from domain.errors import Unavailable

#: How far below the height that enough have they are asked for a block that is the same, where their ends differ.
_STEPS_BACK: Final = (0, 1, 2, 4, 8, 16, 32, 64)


async def vouched(chain: str, pool: Pool, lane: Lane, need: int) -> Head:
    """The highest block that ``need`` providers have; final is what the most careful of them calls so.

    Providers that were not needed for a while are looked at too, so that it is known who lags.
    """
    since = pool.clock()
    said: dict[Member, Head] = {}

    async def look(member: Member) -> Head:
        head = await member.ask(lane, 2, lambda reader: reader.head())
        pool.observe(member, head.latest.number)
        said[member] = head
        return head

    others = [member for member in pool.usable() if since - member.heard_at > pool.patience.heads]
    looks = [asyncio.ensure_future(look(member)) for member in others] if len(pool.members) > need else []
    try:
        await Inquiry(chain, pool, lane, need, look, same=lambda *_: True).result()
        if looks:
            await asyncio.wait(looks, timeout=pool.patience.hedge)
    finally:
        for task in looks:
            task.cancel()
        for failure in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(failure, BaseException) and not isinstance(failure, (ChainFault, asyncio.CancelledError)):
                raise failure
    height = sorted((head.latest.number for head in said.values()), reverse=True)[need - 1]
    pool.judge_lag(height, since)
    for back in _STEPS_BACK:
        found = await _agreed(said, height - back, lane, need)
        if found is not None:
            return found
    raise Unavailable(f"chain:{chain}", f"no {need} providers have the same block below {height}")


async def _agreed(said: dict[Member, Head], number: int, lane: Lane, need: int) -> Head | None:
    groups: dict[bytes, list[tuple[Member, Block]]] = {}
    for member, head in said.items():
        if number < 0 or head.latest.number < number:
            continue
        try:
            block = head.latest if head.latest.number == number else (await reading.headers(member, [number], lane))[0]
        except ChainFault:
            continue
        group = groups.setdefault(block.hash, [])
        group.append((member, block))
        if len(group) >= need:
            finals = [said[one].finalized for one, _ in group]
            known = [final for final in finals if final is not None]
            return Head(block, min(*known, number) if known else None)
    return None
