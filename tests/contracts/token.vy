# pragma version 0.4.3
# pragma evm-version cancun
"""
@notice A token that keeps its promises, or breaks the one that it is told to. It can be a party itself.
"""

flag Habit:
    SILENT
    REFUSES
    GARBAGE
    FEE
    GREEDY
    REENTERS
    REVERTS

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
habit: Habit
victim: address
payload: Bytes[1024]
# How often it called back, and how often that was let through.
tried: public(uint256)
reentered: public(uint256)


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def behave(habit: Habit, victim: address, payload: Bytes[1024]):
    self.habit = habit
    self.victim = victim
    self.payload = payload


@external
@payable
def act(target: address, payload: Bytes[1024]):
    raw_call(target, payload, value=msg.value)


@external
def approve(spender: address, amount: uint256) -> bool:
    self.allowance[msg.sender][spender] = amount
    return True


@external
@raw_return
def transfer(to: address, amount: uint256) -> Bytes[32]:
    self._move(msg.sender, to, amount)
    if Habit.GREEDY in self.habit:
        self.balanceOf[msg.sender] -= 1
    return self._answer()


@external
@raw_return
def transferFrom(owner: address, to: address, amount: uint256) -> Bytes[32]:
    self.allowance[owner][msg.sender] -= amount
    self._move(owner, to, amount)
    return self._answer()


@internal
def _move(owner: address, to: address, amount: uint256):
    assert Habit.REVERTS not in self.habit, "not today"
    if Habit.REENTERS in self.habit:
        self.tried += 1
        if raw_call(self.victim, self.payload, revert_on_failure=False):
            self.reentered += 1
    # A token that answers with "false" moves nothing.
    if Habit.REFUSES in self.habit:
        return
    self.balanceOf[owner] -= amount
    self.balanceOf[to] += amount
    if Habit.FEE in self.habit:
        self.balanceOf[to] -= 1


@internal
@view
def _answer() -> Bytes[32]:
    if Habit.SILENT in self.habit:
        return b""
    if Habit.GARBAGE in self.habit:
        return abi_encode(convert(2, uint256))
    return abi_encode(Habit.REFUSES not in self.habit)
