"""The search attributes that operators filter by in the Temporal UI. All must be registered before a worker starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from temporalio.common import SearchAttributeKey, SearchAttributePair, SearchAttributeUpdate, TypedSearchAttributes

from domain.escrow import Escrow

TENANT = SearchAttributeKey.for_keyword("Tenant")
#: Not "Status": the UI would show it in the place of the execution's own.
STATUS = SearchAttributeKey.for_keyword("BusinessStatus")
ASSET = SearchAttributeKey.for_keyword("Asset")
REFERENCE = SearchAttributeKey.for_keyword("Reference")
USERS = SearchAttributeKey.for_keyword_list("Users")

#: The server refuses a value above 2,048 bytes of JSON; a list of three users has to fit.
VALUE_BYTES_MAX = 500

SEARCH_ATTRIBUTES = (TENANT, STATUS, ASSET, REFERENCE, USERS)


def attributes(
    tenant_id: UUID,
    *,
    status: str | None = None,
    asset: str | None = None,
    reference: str | None = None,
    users: tuple[str, ...] = (),
) -> TypedSearchAttributes:
    """The attributes of a workflow at its start."""
    pairs: list[SearchAttributePair[str] | SearchAttributePair[Sequence[str]]] = [
        SearchAttributePair(TENANT, str(tenant_id))
    ]
    for key, value in ((STATUS, status), (ASSET, asset), (REFERENCE, reference)):
        if value is not None:
            pairs.append(SearchAttributePair(key, shortened(value)))
    if users:
        pairs.append(SearchAttributePair(USERS, [shortened(user) for user in users]))
    return TypedSearchAttributes(pairs)


def escrow_attributes(tenant_id: UUID, escrow: Escrow) -> TypedSearchAttributes:
    """The attributes of an escrow's workflow. What is on a chain goes by its id there."""
    terms = escrow.terms
    return attributes(
        tenant_id,
        status=escrow.status,
        asset=terms.asset.symbol,
        reference=terms.reference or (None if terms.custody is None else terms.custody.onchain_id),
        users=tuple(party.user_id for _, party in escrow.parties()),
    )


def updates(found: TypedSearchAttributes) -> list[SearchAttributeUpdate]:  # type: ignore[type-arg]
    """The same attributes, as a running workflow sets them."""
    return [pair.key.value_set(pair.value) for pair in found.search_attributes]


def shortened(value: str) -> str:
    """``value``, cut where its JSON would grow beyond ``VALUE_BYTES_MAX``; the row has it in full."""
    room = VALUE_BYTES_MAX
    for index, character in enumerate(value):
        room -= len(json.dumps(character)) - 2
        if room < 0:
            return value[:index]
    return value
