#pragma version 0.4.3
"""
@title Marks
@license Apache-2.0
@notice What the hub remembers of an order: how much of it was used, who presigned it, whether it was closed.
@dev One word by order hash: consumed (254) | presigned (1) | closed (1). The presigner's address has a word of its own,
     which only presigned orders touch.

     A request order that its first deal uses up writes nothing: the deal, whose address follows from the request's hash,
     is the mark. So a request whose consumed part is zero is fresh, or wholly used if that first deal exists.
"""

from . import deals
from . import pages
from . import signatures
from . import state

uses: state

CONSUMED_MASK: constant(uint256) = 2**254 - 1
PRESIGNED: constant(uint256) = 2**254
CLOSED: constant(uint256) = 2**255


@internal
@view
def _left(mark: uint256, volume: uint256) -> uint256:
    """
    @dev What is left of an order of this volume.
    """
    consumed: uint256 = mark & CONSUMED_MASK
    if mark >= CLOSED or consumed >= volume:
        return 0
    return unsafe_sub(volume, consumed)


@internal
@view
def _consumed(order_hash: bytes32) -> uint256:
    """
    @dev Used part of any kind of order; of a closed one, its volume.
    """
    consumed: uint256 = state.marks[order_hash] & CONSUMED_MASK
    if consumed == 0:
        first: address = pages._address_of(deals._id(order_hash, 0))
        if first.codesize != 0:
            return deals._bot_size(first)
    return consumed


@internal
@view
def _presigner(order_hash: bytes32) -> address:
    if state.marks[order_hash] & PRESIGNED == 0:
        return empty(address)
    return state.presigners[order_hash]


@internal
@view
def _is_authentic(owner: address, order_hash: bytes32, sign: Bytes[state.SIGN_CAP], mark: uint256) -> bool:
    """
    @dev Whether `owner` presigned or signed an order. A presignature by anyone else, such as a former owner, counts for nothing.
    """
    if mark & PRESIGNED != 0 and owner != empty(address) and state.presigners[order_hash] == owner:
        return True
    return signatures._verify(owner, order_hash, sign)


@internal
def _presign(order_hash: bytes32, owner: address):
    state.presigners[order_hash] = owner
    state.marks[order_hash] |= PRESIGNED


@internal
def _close(order_hash: bytes32, volume: uint256):
    """
    @dev Use up the whole of an order, for good.
    """
    mark: uint256 = state.marks[order_hash]
    state.marks[order_hash] = min(volume, CONSUMED_MASK) | (mark & PRESIGNED) | CLOSED
