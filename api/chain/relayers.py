"""Relayers: where each stands, and what an operator has it do."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from api.chain.models import ChainName, RelayerDetail, RelayerId, RelayerView
from api.chain.views import detail_view, limits_of, relayer_view
from api.deps import Call, caller, router
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.chain import reports
from db.chain.reports import Standing
from domain.chain import RelayerStatus
from domain.errors import Refusal
from domain.identity import Scope
from kit.clock import now

routes = router("/chain/relayers", "chain")


@routes.get("")
async def list_relayers(
    call: Annotated[Call, Depends(caller(Scope.CHAIN_READ))],
    chain: Annotated[ChainName | None, Query()] = None,
    status: Annotated[RelayerStatus | None, Query()] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[RelayerView]:
    """Relayers, the last registered first. Service keys only."""
    call.require_service_key()
    pager = Pager("relayers", {"chain": chain, "status": status})
    before = pager.after(cursor) or None
    async with call.transaction() as connection:
        rows = await reports.list_(connection, chain=chain, status=status, before=before, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "source_id")
    chains, at = call.services.chains, now()
    items = [relayer_view(row, limits_of(chains, row.followed.source.chain), at) for row in rows]
    return Page(items=items, next_cursor=next_cursor)


@routes.get("/{relayer_id}", responses=documented(404))
async def read_relayer(
    relayer_id: RelayerId, call: Annotated[Call, Depends(caller(Scope.CHAIN_READ))]
) -> RelayerDetail:
    """One relayer: where it stands, what is missing, how its chain's providers do, what was settled. Service keys
    only."""
    call.require_service_key()
    async with call.transaction() as connection:
        standing = known(await reports.find(connection, relayer_id))
        source_id, chain = standing.source_id, standing.followed.source.chain
        return detail_view(
            standing,
            limits_of(call.services.chains, chain),
            now(),
            gaps=await reports.gaps(connection, source_id),
            reorganisation=await reports.last_reorganisation(connection, source_id),
            final_sequence=await reports.final_sequence(connection, source_id, standing.finalized_number),
            providers=await reports.providers(connection, chain),
        )


def known(found: Standing | None) -> Standing:
    """A relayer that is there; refuses with ``relayer_unknown``."""
    if found is None:
        raise Refusal("relayer_unknown", "there is no such relayer")
    return found
