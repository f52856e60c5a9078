"""Transfers in two phases: resolved once, by whom and when; nothing is lost on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.ids import new_id
from domain.errors import Refusal
from domain.money import MAX_MINOR, Asset
from domain.transfers import (
    MAX_PENDING,
    Expire,
    PendingTransfer,
    Post,
    Resolution,
    TransferStatus,
    Void,
    check_parties,
    open_transfer,
    resolve,
)

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
USDC = Asset("USDC", 6)


def opened(amount_minor: int = 100, **changes: Any) -> PendingTransfer:
    fields: dict[str, Any] = {"at": T0, "expires_at": T0 + HOUR}
    return open_transfer(new_id(), "alice", "bob", USDC, amount_minor, **(fields | changes))


def code_of(transfer: PendingTransfer, resolution: Resolution, at: datetime = T0) -> str:
    with pytest.raises(Refusal) as refused:
        resolve(transfer, resolution, at=at)
    return refused.value.code


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"amount_minor": 0}, "amount_invalid", "amount"),
        ({"amount_minor": MAX_MINOR + 1}, "amount_too_large", "amount"),
        ({"expires_at": T0}, "expiry_not_in_future", "expires_at"),
        ({"expires_at": T0 + MAX_PENDING + timedelta(microseconds=1)}, "expiry_too_late", "expires_at"),
    ],
)
def test_what_cannot_be_opened(changes: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        opened(**changes)
    assert (refused.value.code, refused.value.field) == (code, field)


@pytest.mark.parametrize(
    ("source", "target", "code", "field"),
    [
        ("alice", "alice", "transfer_to_itself", "links.to"),
        ("system:external", "alice", "account_ref_invalid", "links.from"),
        ("alice", "system:fees", "account_ref_invalid", "links.to"),
    ],
)
def test_parties_are_two_users(source: str, target: str, code: str, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_parties(source, target, field="links.")
    assert (refused.value.code, refused.value.field) == (code, field)


def test_without_an_expiry_it_waits_as_long_as_may_be() -> None:
    assert opened(expires_at=None).expires_at == T0 + MAX_PENDING


def test_a_post_gives_all_or_a_part() -> None:
    whole = resolve(opened(), Post(), at=T0)
    assert (whole.transfer.status, whole.to_target_minor, whole.to_source_minor) == (TransferStatus.POSTED, 100, 0)
    part = resolve(opened(), Post(30), at=T0)
    assert (part.transfer.posted_minor, part.to_target_minor, part.to_source_minor) == (30, 30, 70)
    assert code_of(opened(), Post(101)) == "amount_exceeds_transfer"
    assert code_of(opened(), Post(0)) == "amount_invalid"


def test_a_void_and_an_expiry_give_all_back() -> None:
    void = resolve(opened(), Void(), at=T0)
    assert (void.transfer.status, void.to_target_minor, void.to_source_minor) == (TransferStatus.VOIDED, 0, 100)
    late = resolve(opened(), Expire(), at=T0 + HOUR)
    assert (late.transfer.status, late.to_target_minor, late.to_source_minor) == (TransferStatus.EXPIRED, 0, 100)
    assert late.transfer.posted_minor is None


@pytest.mark.parametrize("resolution", [Post(), Void()])
def test_from_its_expiry_on_it_only_expires(resolution: Resolution) -> None:
    moment = timedelta(microseconds=1)
    assert code_of(opened(), resolution, T0 + HOUR) == "transfer_expired"
    assert code_of(opened(), Expire(), T0 + HOUR - moment) == "transfer_not_due"
    assert resolve(opened(), resolution, at=T0 + HOUR - moment).transfer.resolved_at == T0 + HOUR - moment


RESOLUTIONS: st.SearchStrategy[Resolution] = st.one_of(
    st.builds(Post, st.one_of(st.none(), st.integers(-1, 120))), st.just(Void()), st.just(Expire())
)


@given(st.integers(1, 100), st.lists(st.tuples(RESOLUTIONS, st.integers(-90, 90)), max_size=8))
def test_whatever_is_tried_one_resolution_stands_and_nothing_is_lost(
    amount_minor: int, tries: list[tuple[Resolution, int]]
) -> None:
    transfer = opened(amount_minor)
    done = 0
    for resolution, minutes in tries:
        at = transfer.expires_at + timedelta(minutes=minutes)
        try:
            decision = resolve(transfer, resolution, at=at)
        except Refusal as refusal:
            if transfer.status is not TransferStatus.PENDING:
                assert refusal.code == f"transfer_{transfer.status.lower()}"
            continue
        done += 1
        assert decision.to_target_minor + decision.to_source_minor == amount_minor
        assert (decision.to_target_minor > 0) == (decision.transfer.status is TransferStatus.POSTED)
        assert isinstance(resolution, Expire) == (at >= transfer.expires_at)
        transfer = decision.transfer
    assert done == (transfer.status is not TransferStatus.PENDING)
