#pragma version 0.4.3
#pragma evm-version cancun
"""
@title App
@license Apache-2.0
@notice An app in the AppRegistry.
@dev tail = checksum (32) | sizes of name, type, multiaddr (2 each) | name | type | multiaddr | mrenclave
"""

import entry

initializes: entry
exports: entry.__interface__

HEAD: constant(uint256) = 38


@deploy
def __init__():
    entry.__init__()


@external
@view
def m_appName() -> String[entry.TAIL_BOUND]:
    """
    @notice Name of the app.
    """
    tail: Bytes[entry.TAIL_BOUND] = entry._tail()
    return convert(slice(tail, HEAD, entry._size_at(tail, 32)), String[entry.TAIL_BOUND])


@external
@view
def m_appType() -> String[entry.TAIL_BOUND]:
    """
    @notice Kind of package, `DOCKER` for every client of the field.
    """
    tail: Bytes[entry.TAIL_BOUND] = entry._tail()
    start: uint256 = HEAD + entry._size_at(tail, 32)
    return convert(slice(tail, start, entry._size_at(tail, 34)), String[entry.TAIL_BOUND])


@external
@view
def m_appMultiaddr() -> Bytes[entry.TAIL_BOUND]:
    """
    @notice Where the app's package is: a binary multiaddr or text.
    """
    tail: Bytes[entry.TAIL_BOUND] = entry._tail()
    start: uint256 = HEAD + entry._size_at(tail, 32) + entry._size_at(tail, 34)
    return slice(tail, start, entry._size_at(tail, 36))


@external
@view
def m_appChecksum() -> bytes32:
    """
    @notice Digest of the app's package.
    """
    return convert(slice(entry._tail(), 0, 32), bytes32)


@external
@view
def m_appMREnclave() -> Bytes[entry.TAIL_BOUND]:
    """
    @notice Measurement of older enclave frameworks; empty for TDX.
    """
    tail: Bytes[entry.TAIL_BOUND] = entry._tail()
    start: uint256 = HEAD + entry._size_at(tail, 32) + entry._size_at(tail, 34) + entry._size_at(tail, 36)
    return slice(tail, start, len(tail) - start)
