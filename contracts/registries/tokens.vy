#pragma version 0.4.3
"""
@title Tokens
@license Apache-2.0
@notice An enumerable ERC-721 whose mint costs three words of storage.
@dev A token is only ever minted or moved, never burned, so the list of all tokens only grows. Tokens are numbered from 1
     in the order of their creation. Numbers, places and balances have 32 bits, which `_mint` enforces.

     record of a token    owner (160 bits) | place among the owner's tokens (32 bits) << 160 | extra (64 bits) << 192
     word of a holder     eight lanes of 32 bits; lane 0 of word 0 is the balance, lane p + 1 the number of the token at place p

     A plain enumerable ERC-721 writes seven words for the same.
"""

event Transfer:
    sender: indexed(address)
    to: indexed(address)
    tokenId: indexed(uint256)


event Approval:
    owner: indexed(address)
    approved: indexed(address)
    tokenId: indexed(uint256)


event ApprovalForAll:
    owner: indexed(address)
    operator: indexed(address)
    approved: bool


DATA_CAP: constant(uint256) = 4096
REASON_CAP: constant(uint256) = 1024
ADDRESS_MASK: constant(uint256) = 2**160 - 1
LANE_MASK: constant(uint256) = 2**32 - 1
EXTRA_MASK: constant(uint256) = 2**64 - 1
PLACE_SHIFT: constant(uint256) = 160
EXTRA_SHIFT: constant(uint256) = 192

_records: HashMap[uint256, uint256]
_numbered: HashMap[uint256, uint256]
_held: HashMap[address, HashMap[uint256, uint256]]
_approved: HashMap[uint256, address]
_operators: HashMap[address, HashMap[address, bool]]
# Starts at 1, so that no mint ever pays for a zero word that becomes non-zero.
_next_number: uint256


@deploy
def __init__():
    self._next_number = 1


@external
@view
def supportsInterface(interfaceId: bytes4) -> bool:
    """
    @notice ERC-165: ERC-165, ERC-721 and its metadata and enumeration parts.
    """
    return interfaceId in [0x01ffc9a7, 0x80ac58cd, 0x5b5e139f, 0x780e9d63]


@external
@view
def totalSupply() -> uint256:
    """
    @notice Number of tokens in existence.
    """
    return self._next_number - 1


@external
@view
def tokenByIndex(index: uint256) -> uint256:
    """
    @notice Token at a place in the list of all tokens, oldest first.
    """
    assert index < self._next_number - 1, "ERC721Enumerable: global index out of bounds"
    return self._numbered[index + 1]


@external
@view
def tokenOfOwnerByIndex(owner: address, index: uint256) -> uint256:
    """
    @notice Token at a place in an owner's list. The list has no promised order, a transfer may shuffle it.
    """
    assert index < self._balance_of(owner), "ERC721Enumerable: owner index out of bounds"
    return self._numbered[self._lane(owner, index + 1)]


@external
@view
def balanceOf(owner: address) -> uint256:
    """
    @notice Number of tokens of one owner.
    """
    assert owner != empty(address), "ERC721: address zero is not a valid owner"
    return self._balance_of(owner)


@external
@view
def ownerOf(tokenId: uint256) -> address:
    """
    @notice Owner of a token.
    """
    return self._owner_of_minted(tokenId)


@external
@view
def getApproved(tokenId: uint256) -> address:
    """
    @notice Account that may move this one token, or zero.
    """
    self._owner_of_minted(tokenId)
    return self._approved[tokenId]


@external
@view
def isApprovedForAll(owner: address, operator: address) -> bool:
    """
    @notice Whether `operator` may move every token of `owner`.
    """
    return self._operators[owner][operator]


@external
def approve(to: address, tokenId: uint256):
    """
    @notice Let one account move this one token, until it moves.
    """
    owner: address = self._owner_of_minted(tokenId)
    assert to != owner, "ERC721: approval to current owner"
    assert msg.sender == owner or self._operators[owner][msg.sender], "ERC721: approve caller is not token owner or approved for all"
    self._approved[tokenId] = to
    log Approval(owner=owner, approved=to, tokenId=tokenId)


@external
def setApprovalForAll(operator: address, approved: bool):
    """
    @notice Let an account move every token of the caller, or no longer.
    """
    assert operator != msg.sender, "ERC721: approve to caller"
    self._operators[msg.sender][operator] = approved
    log ApprovalForAll(owner=msg.sender, operator=operator, approved=approved)


@external
def transferFrom(_from: address, to: address, tokenId: uint256):
    """
    @notice Move a token without asking the receiver.
    """
    self._transfer(_from, to, tokenId)


@external
def safeTransferFrom(_from: address, to: address, tokenId: uint256, data: Bytes[DATA_CAP] = b""):
    """
    @notice Move a token; a receiving contract must answer `onERC721Received`.
    @param data At most 4,096 bytes, handed to the receiver.
    """
    self._transfer(_from, to, tokenId)
    # The receiver is asked last: whatever it re-enters finds the books closed.
    if to.is_contract:
        accepted: bool = False
        answer: Bytes[REASON_CAP] = b""
        accepted, answer = raw_call(
            to,
            abi_encode(msg.sender, _from, tokenId, data, method_id=0x150b7a02),
            max_outsize=REASON_CAP,
            revert_on_failure=False,
        )
        if not accepted and len(answer) != 0:
            raw_revert(answer)
        assert accepted and len(answer) >= 32, "ERC721: transfer to non ERC721Receiver implementer"
        assert convert(slice(answer, 0, 4), bytes4) == 0x150b7a02, "ERC721: transfer to non ERC721Receiver implementer"


@internal
@view
def _balance_of(owner: address) -> uint256:
    return self._held[owner][0] & LANE_MASK


@internal
@view
def _owner_or_zero(token_id: uint256) -> address:
    return convert(self._records[token_id] & ADDRESS_MASK, address)


@internal
@view
def _owner_of_minted(token_id: uint256) -> address:
    owner: address = self._owner_or_zero(token_id)
    assert owner != empty(address), "ERC721: invalid token ID"
    return owner


@internal
@view
def _owner_and_extra(token_id: uint256) -> (address, uint256):
    record: uint256 = self._records[token_id]
    return convert(record & ADDRESS_MASK, address), record >> EXTRA_SHIFT


@internal
def _set_extra(token_id: uint256, extra: uint256):
    assert extra <= EXTRA_MASK
    record: uint256 = self._records[token_id]
    self._records[token_id] = (record & (2**EXTRA_SHIFT - 1)) | (extra << EXTRA_SHIFT)


@internal
@view
def _lane(owner: address, lane: uint256) -> uint256:
    return (self._held[owner][lane >> 3] >> ((lane & 7) << 5)) & LANE_MASK


@internal
def _set_lane(owner: address, lane: uint256, number: uint256):
    bits: uint256 = (lane & 7) << 5
    word: uint256 = self._held[owner][lane >> 3]
    self._held[owner][lane >> 3] = (word & ~(LANE_MASK << bits)) | (number << bits)


@internal
def _append(owner: address, number: uint256) -> uint256:
    """
    @dev Put a token at the end of an owner's list; returns its place. Lanes behind the end are always zero.
    """
    head: uint256 = self._held[owner][0]
    place: uint256 = head & LANE_MASK
    lane: uint256 = place + 1
    if lane < 8:
        self._held[owner][0] = (head + 1) | (number << (lane << 5))
    else:
        self._held[owner][0] = head + 1
        self._set_lane(owner, lane, number)
    return place


@internal
def _remove(owner: address, place: uint256) -> uint256:
    """
    @dev Take a token out of an owner's list by moving the last one into its place; returns its number.
    """
    number: uint256 = self._lane(owner, place + 1)
    last: uint256 = self._balance_of(owner) - 1
    if place != last:
        moved: uint256 = self._lane(owner, last + 1)
        moved_id: uint256 = self._numbered[moved]
        self._records[moved_id] = (self._records[moved_id] & ~(LANE_MASK << PLACE_SHIFT)) | (place << PLACE_SHIFT)
        self._set_lane(owner, place + 1, moved)
    self._set_lane(owner, last + 1, 0)
    self._held[owner][0] -= 1
    return number


@internal
def _mint(to: address, token_id: uint256, extra: uint256):
    """
    @dev The caller has made sure that the token is new and `extra` has 64 bits.
    """
    assert to != empty(address), "ERC721: mint to the zero address"
    number: uint256 = self._next_number
    assert number <= LANE_MASK
    self._next_number = number + 1
    self._numbered[number] = token_id
    place: uint256 = self._append(to, number)
    self._records[token_id] = convert(to, uint256) | (place << PLACE_SHIFT) | (extra << EXTRA_SHIFT)
    log Transfer(sender=empty(address), to=to, tokenId=token_id)


@internal
def _transfer(_from: address, to: address, token_id: uint256):
    record: uint256 = self._records[token_id]
    owner: address = convert(record & ADDRESS_MASK, address)
    assert owner != empty(address), "ERC721: invalid token ID"
    approved: address = self._approved[token_id]
    assert msg.sender == owner or msg.sender == approved or self._operators[owner][msg.sender], "ERC721: caller is not token owner or approved"
    assert owner == _from, "ERC721: transfer from incorrect owner"
    assert to != empty(address), "ERC721: transfer to the zero address"
    # ERC-721: a Transfer says by itself that the approval is gone.
    if approved != empty(address):
        self._approved[token_id] = empty(address)
    number: uint256 = self._remove(owner, (record >> PLACE_SHIFT) & LANE_MASK)
    place: uint256 = self._append(to, number)
    self._records[token_id] = convert(to, uint256) | (place << PLACE_SHIFT) | ((record >> EXTRA_SHIFT) << EXTRA_SHIFT)
    log Transfer(sender=owner, to=to, tokenId=token_id)
