#pragma version 0.4.3
#pragma evm-version cancun
"""
@title Dataset
@license Apache-2.0
@notice A dataset (protected data) in the DatasetRegistry.
@dev tail = checksum (32) | size of name (2) | name | multiaddr
"""

import entry

initializes: entry
exports: entry.__interface__

HEAD: constant(uint256) = 34


@deploy
def __init__():
    entry.__init__()


@external
@view
def m_datasetName() -> String[entry.TAIL_BOUND]:
    """
    @notice Name of the dataset.
    """
    tail: Bytes[entry.TAIL_BOUND] = entry._tail()
    return convert(slice(tail, HEAD, entry._size_at(tail, 32)), String[entry.TAIL_BOUND])


@external
@view
def m_datasetMultiaddr() -> Bytes[entry.TAIL_BOUND]:
    """
    @notice Where the encrypted content is: a binary multiaddr or text.
    """
    tail: Bytes[entry.TAIL_BOUND] = entry._tail()
    start: uint256 = HEAD + entry._size_at(tail, 32)
    return slice(tail, start, len(tail) - start)


@external
@view
def m_datasetChecksum() -> bytes32:
    """
    @notice SHA-256 of the encrypted content.
    """
    return convert(slice(entry._tail(), 0, 32), bytes32)
