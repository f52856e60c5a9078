# pragma version 0.4.3
# pragma evm-version cancun
# pragma optimize gas
# pragma nonreentrancy on
"""
@title Escrow
@license Apache-2.0
@notice Holds money of a buyer until both sides did what they promised, in the chain's coin or in ERC-20 tokens.
@dev    The rules, and the reasons of refusals, are those of domain/escrow for an escrow of one milestone without fees.
        Nobody owns this contract: it cannot be paused, changed or emptied. What a party is paid is credited to it and
        leaves by `withdraw` alone, so nobody's refusal to be paid can hold up anybody else.
        Each event carries the next number of one contiguous sequence, whose last number is `sequence()`.
        Money is moved by Funded (into held), Released and Refunded (from held to owed) and Withdrawn (out) alone.
        docs/decisions/0019-contract.md says why.
"""

from ethereum.ercs import IERC20

flag Role:
    BUYER
    SELLER
    ARBITER

flag Status:
    PENDING
    FUNDED
    APPROVED
    DISPUTED
    RELEASED
    REFUNDED
    CANCELLED
    EXPIRED

# What the parties agreed on; it never changes. Empty `arbiter`, `funding_deadline`, `expires_at` and
# `inspection_seconds` mean that there is none. Times are seconds since 1970. An empty `token` is the chain's coin.
struct Terms:
    buyer: address
    seller: address
    arbiter: address
    token: address
    amount: uint256
    approving_roles: Role
    approvals_required: uint256
    funding_deadline: uint256
    expires_at: uint256
    inspection_seconds: uint256

# Where an escrow stands. `release_at` is the end of the inspection while that runs, else 0.
struct State:
    status: Status
    approvals: Role
    released: uint256
    refunded: uint256
    release_at: uint256

# The money of one token, as of one block: `balance` is what the token says, `held + owed` what is known here.
struct Books:
    sequence: uint256
    balance: uint256
    held: uint256
    owed: uint256

event Created:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    reference: bytes32
    buyer: address
    seller: address
    arbiter: address
    token: address
    amount: uint256
    approving_roles: Role
    approvals_required: uint256
    funding_deadline: uint256
    expires_at: uint256
    inspection_seconds: uint256

event Funded:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    token: address
    amount: uint256

event ApprovalRecorded:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    role: Role

event Approved:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    release_at: uint256

event Released:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    account: address
    token: address
    amount: uint256
    remaining: uint256

event Refunded:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    account: address
    token: address
    amount: uint256
    remaining: uint256

event Disputed:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    role: Role
    reason: bytes32
    remaining: uint256

event Resolved:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    to_seller: uint256
    to_buyer: uint256

event Cancelled:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)

event Expired:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)

event Withdrawn:
    sequence: indexed(uint256)
    account: indexed(address)
    token: indexed(address)
    to: address
    amount: uint256

MAX_INSPECTION_SECONDS: constant(uint256) = 366 * 24 * 3600

# The number of the last event; the first one is 1.
sequence: public(uint256)
terms: public(HashMap[bytes32, Terms])
state: public(HashMap[bytes32, State])
# Sums of each token: of what escrows hold, and of what was credited to parties and not withdrawn yet.
held: public(HashMap[address, uint256])
owed: public(HashMap[address, uint256])
# What an account may withdraw: token, account.
withdrawable: public(HashMap[address, HashMap[address, uint256]])


@external
def create(terms: Terms, reference: bytes32) -> bytes32:
    """
    @notice Open an escrow; the buyer or the seller may. It holds nothing yet.
    @param reference What the creator knows it by, a nonce at the same time: the same terms can be opened once with it
    @return Its id, a hash over creator, reference and terms, so that a command can never reach other terms than those
            it was meant for, whatever a reorganisation does to the order of transactions
    """
    assert msg.sender in [terms.buyer, terms.seller], "role_not_allowed"
    self._check_terms(terms)
    escrow_id: bytes32 = self._id(msg.sender, reference, terms)
    assert self.state[escrow_id].status == empty(Status), "escrow_exists"
    self.terms[escrow_id] = terms
    self.state[escrow_id].status = Status.PENDING
    number: uint256 = self._next()
    log Created(
        sequence=number,
        escrow_id=escrow_id,
        by=msg.sender,
        reference=reference,
        buyer=terms.buyer,
        seller=terms.seller,
        arbiter=terms.arbiter,
        token=terms.token,
        amount=terms.amount,
        approving_roles=terms.approving_roles,
        approvals_required=terms.approvals_required,
        funding_deadline=terms.funding_deadline,
        expires_at=terms.expires_at,
        inspection_seconds=terms.inspection_seconds,
    )
    return escrow_id


@external
@payable
def fund(escrow_id: bytes32):
    """
    @notice Pay the whole amount in; the buyer alone may. What was approved before is approved from now on.
    @dev Exactly the amount must arrive: coins beside a token, or a token that keeps a fee, are refused.
    """
    self._check(escrow_id, self._role(escrow_id), Role.BUYER)
    assert self.state[escrow_id].status == Status.PENDING, "milestone_already_funded"
    self._check_in_time(escrow_id)
    token: address = self.terms[escrow_id].token
    amount: uint256 = self.terms[escrow_id].amount
    assert msg.value == (amount if token == empty(address) else 0), "amount_mismatch"

    self.state[escrow_id].status = Status.FUNDED
    self.held[token] += amount
    number: uint256 = self._next()
    log Funded(sequence=number, escrow_id=escrow_id, by=msg.sender, token=token, amount=amount)
    self._agree(escrow_id)

    if token != empty(address):
        before: uint256 = staticcall IERC20(token).balanceOf(self)
        taken: bool = extcall IERC20(token).transferFrom(msg.sender, self, amount, default_return_value=True)
        assert taken, "token_refused"
        assert staticcall IERC20(token).balanceOf(self) == before + amount, "token_not_exact"


@external
def approve(escrow_id: bytes32):
    """
    @notice Say that what was promised was delivered; each role of the policy may, once. May come before the money.
    """
    role: Role = self._role(escrow_id)
    self._check(escrow_id, role, self.terms[escrow_id].approving_roles)
    assert self.state[escrow_id].status != Status.DISPUTED, "milestone_disputed"
    self._check_in_time(escrow_id)
    given: Role = self.state[escrow_id].approvals
    assert role not in given, "already_approved"
    self.state[escrow_id].approvals = given | role
    number: uint256 = self._next()
    log ApprovalRecorded(sequence=number, escrow_id=escrow_id, by=msg.sender, role=role)
    self._agree(escrow_id)


@external
def release(escrow_id: bytes32, amount: uint256):
    """
    @notice Credit the seller with some or all that remains: by the buyer once it is approved or to concede a dispute,
            by the seller once it is approved and the inspection has ended.
    """
    role: Role = self._role(escrow_id)
    self._check(escrow_id, role, Role.BUYER | Role.SELLER)
    assert amount > 0, "amount_invalid"
    status: Status = self.state[escrow_id].status
    assert status != Status.PENDING, "milestone_not_funded"
    assert status != Status.FUNDED, "milestone_not_approved"
    if role == Role.SELLER:
        assert status == Status.APPROVED, "milestone_disputed"
        # Without an inspection `release_at` is 0.
        assert block.timestamp >= self.state[escrow_id].release_at, "inspection_running"
    assert amount <= self._remaining(escrow_id), "amount_exceeds_remaining"
    self._pay(escrow_id, amount, 0, False)


@external
def refund(escrow_id: bytes32, amount: uint256):
    """
    @notice Credit the buyer with some or all that remains; the seller alone may, disputed or not.
    """
    self._check(escrow_id, self._role(escrow_id), Role.SELLER)
    assert amount > 0, "amount_invalid"
    assert self.state[escrow_id].status != Status.PENDING, "milestone_not_funded"
    assert amount <= self._remaining(escrow_id), "amount_exceeds_remaining"
    self._pay(escrow_id, 0, amount, False)


@external
def dispute(escrow_id: bytes32, reason: bytes32):
    """
    @notice Stop an escrow and its clock until it is resolved; buyer and seller may, until the clock has decided.
    @param reason The hash of a text that is kept elsewhere; not empty
    """
    role: Role = self._role(escrow_id)
    self._check(escrow_id, role, Role.BUYER | Role.SELLER)
    assert reason != empty(bytes32), "reason_invalid"
    status: Status = self.state[escrow_id].status
    assert status != Status.PENDING, "milestone_not_funded"
    assert status != Status.DISPUTED, "milestone_disputed"
    due_at: uint256 = self._due_at(escrow_id)
    if due_at != 0 and block.timestamp >= due_at:
        assert status != Status.FUNDED, "escrow_expired"
        raise "inspection_over"
    self.state[escrow_id].status = Status.DISPUTED
    self.state[escrow_id].release_at = 0
    number: uint256 = self._next()
    remaining: uint256 = self._remaining(escrow_id)
    log Disputed(sequence=number, escrow_id=escrow_id, by=msg.sender, role=role, reason=reason, remaining=remaining)


@external
def resolve(escrow_id: bytes32, to_seller: uint256, to_buyer: uint256):
    """
    @notice Split what remains of a disputed escrow, exactly and finally; the arbiter alone may.
    """
    role: Role = self._role(escrow_id)
    assert self.terms[escrow_id].arbiter != empty(address), "no_arbiter"
    self._check(escrow_id, role, Role.ARBITER)
    assert self.state[escrow_id].status == Status.DISPUTED, "not_disputed"
    remaining: uint256 = self._remaining(escrow_id)
    assert to_seller <= remaining and to_buyer == remaining - to_seller, "resolution_not_exact"
    number: uint256 = self._next()
    log Resolved(sequence=number, escrow_id=escrow_id, by=msg.sender, to_seller=to_seller, to_buyer=to_buyer)
    self._pay(escrow_id, to_seller, to_buyer, False)


@external
def cancel(escrow_id: bytes32):
    """
    @notice End an escrow that was never funded; buyer and seller may.
    """
    self._check(escrow_id, self._role(escrow_id), Role.BUYER | Role.SELLER)
    assert not self._holds_money(self.state[escrow_id].status), "escrow_holds_money"
    self.state[escrow_id].status = Status.CANCELLED
    number: uint256 = self._next()
    log Cancelled(sequence=number, escrow_id=escrow_id, by=msg.sender)


@external
def pass_deadline(escrow_id: bytes32):
    """
    @notice Do what the clock owes: release what is approved and inspected, refund what expired, close what was not
            funded in time. Anybody may, because it pays nobody but the parties.
    """
    status: Status = self.state[escrow_id].status
    assert status != empty(Status), "escrow_unknown"
    assert not self._is_closed(status), "escrow_closed"
    due_at: uint256 = self._due_at(escrow_id)
    assert due_at != 0 and block.timestamp >= due_at, "nothing_due"
    if status == Status.APPROVED:
        self._pay(escrow_id, self._remaining(escrow_id), 0, False)
        return
    if status == Status.FUNDED:
        self._pay(escrow_id, 0, self._remaining(escrow_id), True)
    self.state[escrow_id].status = Status.EXPIRED
    number: uint256 = self._next()
    log Expired(sequence=number, escrow_id=escrow_id, by=msg.sender)


@external
def withdraw(token: address, to: address) -> uint256:
    """
    @notice Send all that the caller was credited with in one token (empty: the chain's coin) to an address of its
            choice, so that an address which cannot receive loses nothing.
    @return How much that was
    """
    amount: uint256 = self.withdrawable[token][msg.sender]
    assert amount > 0, "nothing_to_withdraw"
    assert to not in [empty(address), self], "recipient_invalid"

    self.withdrawable[token][msg.sender] = 0
    self.owed[token] -= amount
    number: uint256 = self._next()
    log Withdrawn(sequence=number, account=msg.sender, token=token, to=to, amount=amount)

    if token == empty(address):
        raw_call(to, b"", value=amount)
    else:
        before: uint256 = staticcall IERC20(token).balanceOf(self)
        sent: bool = extcall IERC20(token).transfer(to, amount, default_return_value=True)
        assert sent, "token_refused"
        # A token that takes more from us than we send would take it from others who wait for the same token.
        assert staticcall IERC20(token).balanceOf(self) == before - amount, "token_not_exact"
    return amount


@external
@view
def escrow_id(creator: address, reference: bytes32, terms: Terms) -> bytes32:
    """
    @notice The id that `create` gives, whether it was called or not.
    """
    return self._id(creator, reference, terms)


@external
@view
def remaining(escrow_id: bytes32) -> uint256:
    """
    @notice What is still held for an escrow.
    """
    return self._remaining(escrow_id)


@external
@view
def due_at(escrow_id: bytes32) -> uint256:
    """
    @notice When `pass_deadline` will do something if nobody moves before; 0 where no clock runs.
    """
    return self._due_at(escrow_id)


@external
@view
def books(token: address) -> Books:
    """
    @notice The money of one token, and the number of the last event, as of one block. `balance` is less than
            `held + owed` under no token that keeps its promises; it is more where somebody sent some without asking.
    """
    balance: uint256 = self.balance
    if token != empty(address):
        balance = staticcall IERC20(token).balanceOf(self)
    return Books(sequence=self.sequence, balance=balance, held=self.held[token], owed=self.owed[token])


@internal
def _next() -> uint256:
    self.sequence += 1
    return self.sequence


@internal
@view
def _id(creator: address, reference: bytes32, terms: Terms) -> bytes32:
    return keccak256(abi_encode(chain.id, self, creator, reference, terms))


@internal
@view
def _check_terms(terms: Terms):
    for party: address in [terms.buyer, terms.seller]:
        assert party not in [empty(address), self], "party_invalid"
    assert terms.arbiter != self, "party_invalid"
    assert terms.buyer != terms.seller, "parties_not_distinct"
    # Neither buyer nor seller is empty, so an empty arbiter is neither.
    assert terms.arbiter not in [terms.buyer, terms.seller], "parties_not_distinct"
    assert terms.token == empty(address) or terms.token.is_contract, "token_invalid"
    roles: Role = terms.approving_roles
    assert roles != empty(Role), "policy_roles_invalid"
    assert Role.ARBITER not in roles or terms.arbiter != empty(address), "policy_roles_invalid"
    required: uint256 = terms.approvals_required
    assert required > 0 and required <= self._count(roles), "policy_required_invalid"
    assert terms.amount > 0, "amount_invalid"
    for deadline: uint256 in [terms.funding_deadline, terms.expires_at]:
        assert deadline == 0 or deadline > block.timestamp, "deadline_not_in_future"
    if terms.expires_at != 0:
        assert terms.funding_deadline <= terms.expires_at, "deadlines_out_of_order"
    assert terms.inspection_seconds <= MAX_INSPECTION_SECONDS, "inspection_period_invalid"


@internal
@view
def _role(escrow_id: bytes32) -> Role:
    assert self.state[escrow_id].status != empty(Status), "escrow_unknown"
    if msg.sender == self.terms[escrow_id].buyer:
        return Role.BUYER
    if msg.sender == self.terms[escrow_id].seller:
        return Role.SELLER
    assert msg.sender == self.terms[escrow_id].arbiter, "not_a_party"
    return Role.ARBITER


@internal
@view
def _check(escrow_id: bytes32, role: Role, allowed: Role):
    assert role in allowed, "role_not_allowed"
    assert not self._is_closed(self.state[escrow_id].status), "escrow_closed"


@internal
@view
def _check_in_time(escrow_id: bytes32):
    expires_at: uint256 = self.terms[escrow_id].expires_at
    assert expires_at == 0 or block.timestamp < expires_at, "escrow_expired"
    if self.state[escrow_id].status == Status.PENDING:
        funding_deadline: uint256 = self.terms[escrow_id].funding_deadline
        assert funding_deadline == 0 or block.timestamp < funding_deadline, "funding_deadline_passed"


@internal
@view
def _holds_money(status: Status) -> bool:
    return status in (Status.FUNDED | Status.APPROVED | Status.DISPUTED)


@internal
@view
def _is_closed(status: Status) -> bool:
    return status in (Status.RELEASED | Status.REFUNDED | Status.CANCELLED | Status.EXPIRED)


@internal
@view
def _count(roles: Role) -> uint256:
    count: uint256 = 0
    for role: Role in [Role.BUYER, Role.SELLER, Role.ARBITER]:
        if role in roles:
            count += 1
    return count


@internal
@view
def _remaining(escrow_id: bytes32) -> uint256:
    if not self._holds_money(self.state[escrow_id].status):
        return 0
    return self.terms[escrow_id].amount - self.state[escrow_id].released - self.state[escrow_id].refunded


@internal
@view
def _due_at(escrow_id: bytes32) -> uint256:
    status: Status = self.state[escrow_id].status
    if status == Status.APPROVED:
        return self.state[escrow_id].release_at
    if status == Status.PENDING:
        funding_deadline: uint256 = self.terms[escrow_id].funding_deadline
        if funding_deadline != 0:
            return funding_deadline
    if status in (Status.PENDING | Status.FUNDED):
        return self.terms[escrow_id].expires_at
    return 0


@internal
def _agree(escrow_id: bytes32):
    """
    @dev With both money and approvals an escrow is approved, and its inspection begins.
    """
    if self.state[escrow_id].status != Status.FUNDED:
        return
    if self._count(self.state[escrow_id].approvals) < self.terms[escrow_id].approvals_required:
        return
    release_at: uint256 = 0
    inspection_seconds: uint256 = self.terms[escrow_id].inspection_seconds
    if inspection_seconds != 0:
        release_at = block.timestamp + inspection_seconds
        self.state[escrow_id].release_at = release_at
    self.state[escrow_id].status = Status.APPROVED
    number: uint256 = self._next()
    log Approved(sequence=number, escrow_id=escrow_id, by=msg.sender, release_at=release_at)


@internal
def _pay(escrow_id: bytes32, to_seller: uint256, to_buyer: uint256, expired: bool):
    """
    @dev Credits the parties out of what remains, which both parts together do not exceed. With nothing left the escrow
         ends; where it `expired`, the caller says how.
    """
    token: address = self.terms[escrow_id].token
    remaining: uint256 = self._remaining(escrow_id)
    self.held[token] -= to_seller + to_buyer
    self.owed[token] += to_seller + to_buyer
    if to_seller > 0:
        remaining -= to_seller
        seller: address = self.terms[escrow_id].seller
        self.state[escrow_id].released += to_seller
        self.withdrawable[token][seller] += to_seller
        number: uint256 = self._next()
        log Released(
            sequence=number,
            escrow_id=escrow_id,
            by=msg.sender,
            account=seller,
            token=token,
            amount=to_seller,
            remaining=remaining,
        )
    if to_buyer > 0:
        remaining -= to_buyer
        buyer: address = self.terms[escrow_id].buyer
        self.state[escrow_id].refunded += to_buyer
        self.withdrawable[token][buyer] += to_buyer
        number: uint256 = self._next()
        log Refunded(
            sequence=number,
            escrow_id=escrow_id,
            by=msg.sender,
            account=buyer,
            token=token,
            amount=to_buyer,
            remaining=remaining,
        )
    if remaining == 0 and not expired:
        self.state[escrow_id].release_at = 0
        self.state[escrow_id].status = Status.RELEASED if self.state[escrow_id].released > 0 else Status.REFUNDED
