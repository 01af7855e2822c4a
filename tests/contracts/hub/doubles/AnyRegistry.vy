#pragma version 0.4.3
"""
@title AnyRegistry
@license Apache-2.0
@notice A registry where everything is one account's.
"""

OWNER: immutable(address)
POLICY: immutable(uint256)


@deploy
def __init__(owner: address, policy: uint256):
    OWNER = owner
    POLICY = policy


@external
@view
def resolve(_entry: address) -> (address, uint256):
    """
    @notice Owner and policy.
    """
    return OWNER, POLICY
