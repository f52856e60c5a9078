# pragma version 0.4.3
# pragma evm-version cancun
"""
@notice A party that is a contract, and what it does when coins arrive.
"""

flag Habit:
    REVERTS
    REENTERS
    BURNS

habit: Habit
victim: address
payload: Bytes[1024]
tried: public(uint256)
reentered: public(uint256)


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
@payable
def __default__():
    assert Habit.REVERTS not in self.habit, "no, thank you"
    if Habit.REENTERS in self.habit:
        self.tried += 1
        if raw_call(self.victim, self.payload, revert_on_failure=False):
            self.reentered += 1
    if Habit.BURNS in self.habit:
        spent: uint256 = 0
        for _: uint256 in range(2**64):
            spent = unsafe_add(spent, 1)
