# pragma version 0.4.3
# pragma evm-version cancun
"""
@notice Events as the escrow contract writes them, as many as wanted, and nothing else: what a chain full of them costs.
"""

event Released:
    sequence: indexed(uint256)
    escrow_id: indexed(bytes32)
    by: indexed(address)
    account: address
    token: address
    amount: uint256
    remaining: uint256

sequence: public(uint256)


@external
def flood(count: uint256):
    """
    @notice Write so many events, and count them.
    """
    number: uint256 = self.sequence
    for n: uint256 in range(count, bound=1000):
        number += 1
        log Released(
            sequence=number,
            escrow_id=convert(number, bytes32),
            by=msg.sender,
            account=msg.sender,
            token=empty(address),
            amount=number * 10**18,
            remaining=number,
        )
    self.sequence = number
