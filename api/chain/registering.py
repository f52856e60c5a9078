"""A contract, or addresses of interest, are registered: their relayer starts by the event that this leaves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.chain.models import RelayerInput, RelayerView
from api.chain.relayers import known
from api.chain.views import limits_of, relayer_view
from api.deps import Call, poster, router
from api.idempotency import Answer, Attempt, Configuration, once
from api.problems import documented
from db.audit import AuditRecord, Origin
from db.chain import reports, sources
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Left, leave
from domain.chain import ChainKind, Source
from domain.chain.addresses import read_address, write_address
from domain.chain.identity import relayer_id_of
from domain.errors import Refusal
from domain.identity import Scope
from domain.ids import relayer_workflow_id
from kit.chains import ChainsConfig
from kit.clock import now

#: What starts a relayer.
REGISTERED = "chain.source_registered"

routes = router("/chain/relayers", "chain")


@routes.post("", status_code=201, response_model=RelayerView, responses=documented(409, 413, 415))
async def register_relayer(body: RelayerInput, call: Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]) -> Response:
    """Have a contract, or addresses of interest, followed from a block on. Service keys only.

    A contract has one relayer and belongs to one tenant. It is followed within seconds; what lies between `start_block`
    and `follow_from` is for a backfill, and nothing above it is settled before that is here.
    """
    call.require_service_key()
    return await once(call, _Registering(call, body))


class _Registering(Configuration):
    """Writes a source with its cursor, and the event that starts its relayer."""

    def __init__(self, call: Call, body: RelayerInput) -> None:
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        call, body, at = self._call, self._body, now()
        tenant, chains = call.principal.tenant_id, call.services.chains
        source, follow_from = _source(call, chains, body)
        if await reports.following_any(connection, source.chain, source.addresses) is not None:
            raise Refusal("source_taken", "the contract, or one of the addresses, is followed already")
        source = await sources.register(connection, source, follow_from=follow_from, last_sequence=0)
        facts: dict[str, Any] = {
            "relayer_id": source.relayer_id,
            "chain": source.chain,
            "network": source.network,
            "addresses": [write_address(source.kind, source.network, address) for address in source.addresses],
            "start_block": source.start_block,
            "follow_from": follow_from,
            "settles": source.settles,
        }
        subject = relayer_workflow_id(source.relayer_id)
        origin = Origin(key_id=call.principal.key_id, request_id=call.request_id)
        record = AuditRecord(subject, REGISTERED, at, origin, facts)
        event = OutboxEvent(new_id(), SETTLEMENT_TOPIC, REGISTERED, subject, at, facts)
        await leave(connection, tenant, [Left(f"{subject}:registered:{attempt.operation_id}", {}, record, [event])])
        standing = known(await reports.find(connection, source.relayer_id))
        view = relayer_view(standing, limits_of(chains, source.chain), at)
        return Answer(201, view, {"Location": f"/api/v1/chain/relayers/{source.relayer_id}"})


def _source(call: Call, chains: ChainsConfig, body: RelayerInput) -> tuple[Source, int]:
    """What a request wants followed, and from where on; refuses what cannot be."""
    chain = chains.chains.get(body.chain)
    if chain is None:
        names = ", ".join(sorted(chains.chains)) or "it has none"
        raise Refusal("chain_unknown", f"CHAINS_FILE has no chain {body.chain!r}: {names}", field="chain")
    kind = ChainKind(chain.kind)
    addresses = _addresses(kind, chain.network, body)
    follow_from = body.start_block if body.follow_from is None else body.follow_from
    if follow_from < body.start_block:
        raise Refusal("block_range_invalid", "it begins at start_block or behind it", field="follow_from")
    contract = kind is ChainKind.EVM
    if body.settles and not contract:
        raise Refusal("addresses_invalid", "what moves on addresses of interest is no escrow's", field="settles")
    source = Source(
        source_id=0,
        tenant_id=call.principal.tenant_id,
        relayer_id=relayer_id_of(body.chain, chain.network, addresses, contract=contract),
        chain=body.chain,
        kind=kind,
        network=chain.network,
        addresses=addresses,
        start_block=body.start_block,
        sequenced=contract,
        settles=contract if body.settles is None else body.settles,
    )
    return source, follow_from


def _addresses(kind: ChainKind, network: str, body: RelayerInput) -> tuple[bytes, ...]:
    if kind is ChainKind.EVM:
        if body.contract is None or body.addresses is not None:
            raise Refusal("addresses_invalid", "on an EVM chain a contract is followed, alone", field="contract")
        return (read_address(kind, network, body.contract, field="contract"),)
    if body.addresses is None or body.contract is not None:
        raise Refusal("addresses_invalid", "on a UTXO chain addresses are followed", field="addresses")
    read = [read_address(kind, network, each, field=f"addresses.{n}") for n, each in enumerate(body.addresses)]
    if len(set(read)) != len(read):
        raise Refusal("addresses_invalid", "an address is named twice", field="addresses")
    return tuple(sorted(read))
