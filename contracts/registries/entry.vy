#pragma version 0.4.3
"""
@title Entry
@license Apache-2.0
@notice What apps, datasets and workerpools share: an owner who follows the token, and fields read from the entry's own code.
@dev Runs by delegate call from an entry's proxy, so `self` is the entry while the immutable is this code's.
"""

interface Registry:
    def ownerOf(_tokenId: uint256) -> address: view


TAIL_CAP: constant(uint256) = 3456
TAIL_START: constant(uint256) = 45
WORDS_CAP: constant(uint256) = TAIL_CAP // 32 + 1
TAIL_BOUND: constant(uint256) = 64 + 32 * WORDS_CAP

registry: public(immutable(address))


@deploy
def __init__():
    registry = msg.sender


@external
@view
def owner() -> address:
    """
    @notice Whoever holds the entry's token in its registry.
    """
    return self._owner()


@external
def setName(_ens: address, _name: String[256]):
    """
    @notice There is no name service on this chain; the owner is told so.
    """
    self._check_owner()
    raise "Operation not supported on this chain"


@internal
@view
def _owner() -> address:
    return staticcall Registry(registry).ownerOf(convert(self, uint256))


@internal
@view
def _check_owner():
    assert msg.sender == self._owner(), "caller is not the owner"


@internal
@view
def _tail() -> Bytes[TAIL_BOUND]:
    """
    @dev The bytes behind the proxy's 45. A slice of code has a constant length in this language, so it is read by words;
         the last word is read backwards from the end of the code and shifted into place.
    """
    me: address = self
    end: uint256 = me.codesize
    words: DynArray[bytes32, WORDS_CAP] = []
    at: uint256 = TAIL_START
    for _: uint256 in range(WORDS_CAP):
        if at >= end:
            break
        if at + 32 <= end:
            words.append(convert(slice(me.code, at, 32), bytes32))
        else:
            last: uint256 = convert(slice(me.code, end - 32, 32), uint256)
            words.append(convert(last << ((at + 32 - end) * 8), bytes32))
        at += 32
    # The encoding of an array is an offset and a count, then its words one after the other.
    return slice(abi_encode(words), 64, end - TAIL_START)


@internal
@pure
def _size_at(tail: Bytes[TAIL_BOUND], at: uint256) -> uint256:
    """
    @dev A two-byte length.
    """
    return convert(convert(slice(tail, at, 2), bytes2), uint256)
