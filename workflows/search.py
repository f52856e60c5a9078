"""The search attributes that operators filter by in the Temporal UI. All must be registered before a worker starts."""

from __future__ import annotations

from uuid import UUID

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

TENANT = SearchAttributeKey.for_keyword("Tenant")
STATUS = SearchAttributeKey.for_keyword("Status")
ASSET = SearchAttributeKey.for_keyword("Asset")
REFERENCE = SearchAttributeKey.for_keyword("Reference")
USERS = SearchAttributeKey.for_keyword_list("Users")

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
    pairs: list[SearchAttributePair[str] | SearchAttributePair[list[str]]] = [
        SearchAttributePair(TENANT, str(tenant_id))
    ]
    for key, value in ((STATUS, status), (ASSET, asset), (REFERENCE, reference)):
        if value is not None:
            pairs.append(SearchAttributePair(key, value))
    if users:
        pairs.append(SearchAttributePair(USERS, list(users)))
    return TypedSearchAttributes(pairs)
