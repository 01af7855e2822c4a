#pragma version 0.4.3
"""
@title Operations
@license Apache-2.0
@notice What an owner does to an order of its own: presign it, or close it.
"""

from . import marks
from . import orders
from . import signatures
from . import state

uses: marks


@internal
def _operate(
    owner: address,
    struct_hash: bytes32,
    operation_type: bytes32,
    operation: uint8,
    volume: uint256,
    sign: Bytes[state.SIGN_CAP],
) -> bytes32:
    """
    @dev Presign or close the order of `struct_hash` in its owner's name.
    @return The order's hash.
    """
    assert operation <= orders.CLOSE_OPERATION
    separator: bytes32 = orders._domain_separator()
    order_hash: bytes32 = orders._digest(separator, struct_hash)
    assert owner != empty(address), "invalid-sender-or-signature"
    if msg.sender != owner:
        operation_hash: bytes32 = orders._digest(
            separator, keccak256(abi_encode(operation_type, struct_hash, convert(operation, uint256)))
        )
        assert signatures._verify(owner, operation_hash, sign), "invalid-sender-or-signature"
    if operation == orders.SIGN_OPERATION:
        marks._presign(order_hash, owner)
    else:
        marks._close(order_hash, volume)
    return order_hash
