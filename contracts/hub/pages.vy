#pragma version 0.4.3
"""
@title Pages
@license Apache-2.0
@notice Bytes that are written once, kept as the code of a contract: 200 gas a byte where a storage word costs 22,100.
@dev The init code is the same for every page and fetches the bytes from the hub, so the address follows from the salt alone
     and no word is spent on remembering it. A page begins with STOP: calling it does nothing, and it can never be destroyed.

     init code: 5f5f5f5f 33 5a fa   staticcall(gas, caller, no data); the hub answers with `state.page`
                15 3d 90 5f 3e      returndatacopy(0, failed, size), which halts out of bounds if the call failed
                3d 5f f3            return(0, size)
"""

from . import state

uses: state

ADDRESS_MASK: constant(uint256) = 2**160 - 1
INITCODE: constant(Bytes[15]) = x"5f5f5f5f335afa153d905f3e3d5ff3"
INITCODE_HASH: constant(bytes32) = keccak256(x"5f5f5f5f335afa153d905f3e3d5ff3")
MAX_WORDS: constant(uint256) = state.PAGE_CAP // 32
TAIL_BOUND: constant(uint256) = 32 * MAX_WORDS + 64


@internal
@view
def _address_of(salt: bytes32) -> address:
    """
    @dev Where the page of this salt is or will be (EIP-1014).
    """
    digest: bytes32 = keccak256(concat(0xff, convert(self, bytes20), salt, INITCODE_HASH))
    return convert(convert(digest, uint256) & ADDRESS_MASK, address)


@internal
def _write(salt: bytes32):
    """
    @dev Write what stands in `state.page`. Reverts if the salt was used.
    """
    page: address = raw_create(INITCODE, salt=salt)
    state.page = b""


@internal
@view
def _word(page: address, end: uint256) -> uint256:
    """
    @dev The 32 bytes of a page that end before offset `end`.
    """
    return convert(convert(slice(page.code, unsafe_sub(end, 32), 32), bytes32), uint256)


@internal
@view
def _tail(page: address, start: uint256) -> Bytes[TAIL_BOUND]:
    """
    @dev The bytes of a page from `start` on; `start` is at least 32. For views: about 250 gas a word.
    """
    size: uint256 = page.codesize
    words: DynArray[bytes32, MAX_WORDS] = []
    position: uint256 = start
    for i: uint256 in range(MAX_WORDS):
        if position + 32 > size:
            break
        words.append(convert(slice(page.code, position, 32), bytes32))
        position += 32
    if position < size:
        words.append(convert(self._word(page, size) << (8 * (32 - (size - position))), bytes32))
    # An encoded array is its offset, its length and then the words in a row.
    return slice(abi_encode(words), 64, size - start)
