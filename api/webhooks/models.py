"""The shapes that requests and answers about webhooks have on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.fields import WHOLE, Input, Instant, Prose, UserId
from domain.webhooks.delivering import AttemptResult, DeliveryStatus
from domain.webhooks.endpoint import (
    CONCURRENCY_DEFAULT,
    CONCURRENCY_MAX,
    HEADER_NAME_MAX,
    HEADER_VALUE_MAX,
    HEADERS_MAX,
    RATE_MAX,
    DisabledReason,
    EndpointStatus,
    Ordering,
)
from domain.webhooks.urls import URL_LENGTH_MAX

TYPES_MAX = 100
OVERLAP_HOURS_MAX = 168

Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=URL_LENGTH_MAX),
    Field(description="HTTPS, and on the public Internet", examples=["https://example.com/holdfast"]),
]
EventTypes = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=100)]],
    Field(
        min_length=1,
        max_length=TYPES_MAX,
        description="Types of the catalogue; `*` at an end stands for any ending. `*` alone is everything that happens"
        " to the tenant: prices, which are everybody's, have to be named",
        examples=[["escrow.*", "margin_call"]],
    ),
]
Headers = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=HEADER_NAME_MAX)],
        Annotated[str, StringConstraints(min_length=1, max_length=HEADER_VALUE_MAX)],
    ],
    Field(max_length=HEADERS_MAX, description="Sent along with every request; no answer shows their values"),
]
Rate = Annotated[int, WHOLE, Field(ge=1, le=RATE_MAX, description="Requests begun in a second, at most")]
Concurrency = Annotated[int, WHOLE, Field(ge=1, le=CONCURRENCY_MAX, description="Requests on their way at a time")]
OrderingField = Annotated[
    Ordering,
    Field(
        description="`subject`: events of one subject come strictly one after the other; one that fails holds up those"
        " behind it until it is delivered or given up"
    ),
]


class SubscriptionInput(Input):
    """An endpoint, and what it is to get."""

    url: Url
    event_types: EventTypes
    description: Prose | None = None
    user_id: UserId | None = Field(default=None, description="Only what concerns this user")
    escrow_id: UUID | None = Field(default=None, description="Only what concerns this escrow")
    headers: Headers = Field(default={})
    rate_limit_per_second: Rate | None = None
    concurrency: Concurrency = CONCURRENCY_DEFAULT
    ordering: OrderingField = Ordering.NONE
    owner_user_id: UserId | None = Field(default=None, description="Who is told when nothing is sent any more")


class SubscriptionPatch(Input):
    """What is to change; a field that is left out stays as it is, and null takes away what may be missing."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Prose | None = None
    user_id: UserId | None = None
    escrow_id: UUID | None = None
    headers: Headers | None = Field(default=None, description="Replaces all of them")
    rate_limit_per_second: Rate | None = None
    concurrency: Concurrency | None = None
    ordering: Ordering | None = None
    owner_user_id: UserId | None = None
    enabled: bool | None = Field(default=None, description="Enabled again, it gets what waited for it meanwhile")


class KeyStateView(BaseModel):
    """A key that signs now."""

    key_id: UUID
    public_key: str = Field(description="Checks `v1a` signatures (Ed25519); no secret", examples=["whpk_…"])
    created_at: datetime
    expires_at: datetime | None = Field(description="It signs until then beside the one that took its place")


class SubscriptionView(BaseModel):
    """An endpoint, and what it gets."""

    subscription_id: UUID
    url: str
    event_types: list[str]
    description: str | None
    user_id: str | None
    escrow_id: UUID | None
    header_names: list[str]
    rate_limit_per_second: int | None
    concurrency: int
    ordering: Ordering
    owner_user_id: str | None
    status: EndpointStatus
    disabled_reason: DisabledReason | None
    disabled_at: datetime | None
    created_at: datetime
    keys: list[KeyStateView] = Field(description="The newest first; empty in a list")


class SubscriptionWithSecret(SubscriptionView):
    """An endpoint with its new secret: keep it, it is not shown again."""

    secret: str = Field(description="Checks `v1` signatures (HMAC-SHA256)", examples=["whsec_…"])


class RotationInput(Input):
    """How long the keys so far go on to sign beside the new ones."""

    overlap_hours: Annotated[int, WHOLE, Field(ge=0, le=OVERLAP_HOURS_MAX)] = 24


class TestInput(Input):
    """What the test is to look like."""

    event_type: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        default=None, description="A type of the catalogue, named in the test's data; nothing is made up"
    )


class EventKindView(BaseModel):
    """A type of event."""

    model_config = ConfigDict(serialize_by_alias=True)

    type: str
    description: str
    everybodys: bool = Field(description="It happens to no tenant in particular, and `*` alone does not mean it")
    schema_: dict[str, Any] = Field(serialization_alias="schema", description="JSON Schema of the body")


class Catalogue(BaseModel):
    """Every type of event."""

    items: list[EventKindView]


class RequestView(BaseModel):
    """What was sent."""

    url: str
    headers: dict[str, str] | None = Field(description="Null while it is not known whether anything was sent")
    body: str


class ResponseView(BaseModel):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str = Field(description="Its beginning")
    truncated: bool


class AttemptView(BaseModel):
    """One attempt to deliver."""

    number: int
    started_at: datetime
    finished_at: datetime | None
    result: AttemptResult | None = Field(description="Null: under way, or lost with its process and made again")
    duration_ms: int | None
    request: RequestView
    response: ResponseView | None
    error: str | None


class DeliveryView(BaseModel):
    """A message for an endpoint. `message_id` is the event's id and the header `webhook-id` of every attempt."""

    message_id: UUID
    event_type: str
    subject: str
    position: int | None
    origin: str = Field(description="Why it was begun last: event, replay, retry or test")
    status: DeliveryStatus
    failures: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    attempts: list[AttemptView]


class ReplayInput(Input):
    """Which events are to be delivered again."""

    from_: Instant = Field(alias="from", description="Recorded then or later")
    to: Instant = Field(description="Recorded before")
    undelivered_only: bool = Field(default=True, description="False sends again what was delivered, too")


class ReplayView(BaseModel):
    """A replay and how far it is."""

    model_config = ConfigDict(serialize_by_alias=True)

    replay_id: UUID
    from_: datetime = Field(serialization_alias="from")
    to: datetime
    undelivered_only: bool
    queued: int = Field(description="Deliveries that it began so far")
    created_at: datetime
    finished_at: datetime | None = Field(description="When every event of the time had been looked at")


class LatencyView(BaseModel):
    """How long the endpoint takes to answer, in milliseconds."""

    p50: int
    p95: int
    p99: int


class EndpointHealthView(BaseModel):
    """How well an endpoint does."""

    status: EndpointStatus
    disabled_reason: DisabledReason | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    failing_since: datetime | None = Field(description="The first failure behind the last success")
    disabled_if_failing_until: datetime | None = Field(description="Without a success it is disabled from then on")
    paused_until: datetime | None = Field(description="It asked to be left alone until then")
    waiting: int = Field(description="Deliveries that wait, counted up to 10,000")
    oldest_waiting_at: datetime | None
    next_attempt_at: datetime | None
    attempts: int = Field(description="Of the last 500 deliveries; so are the figures below")
    delivered: int
    latency_ms: LatencyView | None
