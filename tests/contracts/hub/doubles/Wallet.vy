#pragma version 0.4.3
"""
@title Wallet
@license Apache-2.0
@notice A contract account (ERC-1271) that approves what it was told to, and a group (ERC-734) of whom it was told.
"""

approved: HashMap[bytes32, bool]
members: HashMap[bytes32, HashMap[uint256, bool]]
# 0 answers as it should, 1 reverts, 2 answers too little, 3 answers a dirty word
mood: uint256


@external
def approve_hash(digest: bytes32):
    """
    @notice Sign a hash.
    """
    self.approved[digest] = True


@external
def add_member(account: address, purpose: uint256):
    """
    @notice Let an account in.
    """
    self.members[convert(account, bytes32)][purpose] = True


@external
def set_mood(mood: uint256):
    """
    @notice How to answer.
    """
    self.mood = mood


@external
@view
@raw_return
def isValidSignature(_hash: bytes32, _signature: Bytes[1024]) -> Bytes[32]:
    """
    @notice ERC-1271.
    """
    assert self.mood != 1
    if self.mood == 2:
        return x"1626ba7e"
    if self.mood == 3:
        return x"1626ba7effffffffffffffffffffffffffffffffffffffffffffffffffffffff"
    if self.approved[_hash]:
        return x"1626ba7e00000000000000000000000000000000000000000000000000000000"
    return x"ffffffff00000000000000000000000000000000000000000000000000000000"


@external
@view
@raw_return
def keyHasPurpose(_key: bytes32, _purpose: uint256) -> Bytes[32]:
    """
    @notice ERC-734.
    """
    assert self.mood != 1
    if self.mood == 2:
        return x"01"
    if self.mood == 3:
        return x"0000000000000000000000000000000000000000000000000000000000000002"
    if self.members[_key][_purpose]:
        return x"0000000000000000000000000000000000000000000000000000000000000001"
    return x"0000000000000000000000000000000000000000000000000000000000000000"


@external
@payable
def execute(_to: address, _data: Bytes[16384]):
    """
    @notice Do something as this account.
    """
    raw_call(_to, _data, value=msg.value)
