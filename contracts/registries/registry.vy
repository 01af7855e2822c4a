#pragma version 0.4.3
"""
@title Registry
@license Apache-2.0
@notice What the three registries share: entries made by CREATE2 whose ERC-721 token is their address, an older registry to
        fall back on, and metadata.
@dev An entry is an EIP-1167 proxy with its fields appended to its own runtime code ("tail"), written once at 200 gas a byte
     where a storage word costs 22,100. The owner is the salt and the fields are part of the init code, so the same
     arguments always give the same address and nobody can take an address for another owner.
"""

import ownership
import tokens

uses: ownership
uses: tokens

interface PreviousRegistry:
    def isRegistered(_entry: address) -> bool: view


interface OwnedEntry:
    def owner() -> address: view


TAIL_CAP: constant(uint256) = 3456
INITCODE_CAP: constant(uint256) = TAIL_CAP + 55
PROXY_SIZE: constant(uint256) = 45
URI_CAP: constant(uint256) = 512

name: public(immutable(String[64]))
symbol: public(immutable(String[32]))
# The implementation behind every entry's proxy.
master: public(immutable(address))
previous: public(address)
initialized: public(bool)
baseURI: public(String[URI_CAP])


@deploy
def __init__(name_: String[64], symbol_: String[32], entry_blueprint: address):
    """
    @param entry_blueprint ERC-5202 blueprint of the entry's code. The entry takes its creator as its registry, which is why
           the registry creates it and does not get it ready made.
    """
    name = name_
    symbol = symbol_
    master = create_from_blueprint(entry_blueprint)


@external
def initialize(_previous: address):
    """
    @notice Name the registry that is asked for entries unknown here, once.
    @param _previous An older registry, or zero for none.
    """
    ownership._check_owner()
    assert not self.initialized, "already initialized"
    # A registry that asks itself would never get an answer.
    assert _previous != self, "previous registry is this one"
    self.initialized = True
    self.previous = _previous


@external
def setBaseURI(_baseURI: String[URI_CAP]):
    """
    @notice Set the text that stands before the decimal id in every token's URI, at most 512 bytes.
    """
    ownership._check_owner()
    self.baseURI = _baseURI


@external
@view
def tokenURI(tokenId: uint256) -> String[URI_CAP + 78]:
    """
    @notice Base URI followed by the id in decimal; empty while there is no base URI.
    """
    tokens._owner_of_minted(tokenId)
    base: String[URI_CAP] = self.baseURI
    if len(base) == 0:
        return ""
    return concat(base, uint2str(tokenId))


@external
def setName(_ens: address, _name: String[256]):
    """
    @notice There is no name service on this chain; the owner is told so.
    """
    ownership._check_owner()
    raise "Operation not supported on this chain"


@external
@view
def isRegistered(_entry: address) -> bool:
    """
    @notice Whether an address is an entry of this registry or of the one before it.
    """
    if tokens._owner_or_zero(convert(_entry, uint256)) != empty(address):
        return True
    return self._previous_knows(_entry)


@internal
@view
def _previous_knows(entry: address) -> bool:
    previous_registry: address = self.previous
    if previous_registry == empty(address):
        return False
    return staticcall PreviousRegistry(previous_registry).isRegistered(entry)


@internal
@view
def _resolve(entry: address) -> (address, uint256, bool):
    """
    @dev Owner (zero when unknown), 64-bit extra, and whether the entry belongs to an older registry.
    """
    owner: address = empty(address)
    extra: uint256 = 0
    owner, extra = tokens._owner_and_extra(convert(entry, uint256))
    if owner == empty(address) and self._previous_knows(entry):
        return staticcall OwnedEntry(entry).owner(), 0, True
    return owner, extra, False


@internal
@view
def _initcode(tail: Bytes[TAIL_CAP]) -> Bytes[INITCODE_CAP]:
    """
    @dev Ten bytes that return the rest, then the proxy of EIP-1167, then the tail, which is never reached as code.
    """
    return concat(
        x"61",
        convert(convert(PROXY_SIZE + len(tail), uint16), bytes2),
        x"80600a3d393df3363d3d373d3d3d363d73",
        convert(master, bytes20),
        x"5af43d82803e903d91602b57fd5bf3",
        tail,
    )


@internal
@view
def _address_of(owner: address, initcode: Bytes[INITCODE_CAP]) -> address:
    """
    @dev EIP-1014 with the owner as salt.
    """
    digest: bytes32 = keccak256(concat(0xff, convert(self, bytes20), convert(owner, bytes32), keccak256(initcode)))
    return convert(convert(digest, uint256) & (2**160 - 1), address)


@internal
@view
def _predict(owner: address, tail: Bytes[TAIL_CAP]) -> address:
    return self._address_of(owner, self._initcode(tail))


@internal
def _create(owner: address, tail: Bytes[TAIL_CAP], extra: uint256) -> address:
    initcode: Bytes[INITCODE_CAP] = self._initcode(tail)
    entry: address = self._address_of(owner, initcode)
    # Asked before the attempt: a CREATE2 onto a taken address burns all the gas it was given.
    assert tokens._owner_or_zero(convert(entry, uint256)) == empty(address), "Create2: Failed on deploy"
    tokens._mint(owner, convert(entry, uint256), extra)
    assert raw_create(initcode, salt=convert(owner, bytes32)) == entry
    return entry


@internal
@pure
def _size(field: uint256) -> bytes2:
    """
    @dev Two bytes that say how long a field is; every cap is far below 65,536.
    """
    return convert(convert(field, uint16), bytes2)
