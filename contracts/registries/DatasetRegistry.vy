#pragma version 0.4.3
#pragma evm-version cancun
"""
@title DatasetRegistry
@license Apache-2.0
@notice Registry of datasets (protected data). Each is an ERC-721 token whose id is the dataset's address.
"""

import ownership
import registry
import tokens

initializes: ownership
initializes: tokens
initializes: registry[ownership := ownership, tokens := tokens]
exports: (ownership.__interface__, tokens.__interface__, registry.__interface__)

NAME_CAP: constant(uint256) = 256
MULTIADDR_CAP: constant(uint256) = 1024


@deploy
def __init__(entry_blueprint: address):
    """
    @param entry_blueprint ERC-5202 blueprint of Dataset.
    """
    ownership.__init__()
    tokens.__init__()
    registry.__init__("iExec Dataset Registry (V5)", "iExecDatasetsV5", entry_blueprint)


@external
def createDataset(
    _datasetOwner: address,
    _datasetName: String[NAME_CAP],
    _datasetMultiaddr: Bytes[MULTIADDR_CAP],
    _datasetChecksum: bytes32,
) -> address:
    """
    @notice Register a dataset for an owner; anybody may.
    @param _datasetName At most 256 bytes.
    @param _datasetMultiaddr At most 1,024 bytes.
    @return The dataset's address, the one `predictDataset` tells.
    """
    return registry._create(_datasetOwner, self._tail(_datasetName, _datasetMultiaddr, _datasetChecksum), 0)


@external
@view
def predictDataset(
    _datasetOwner: address,
    _datasetName: String[NAME_CAP],
    _datasetMultiaddr: Bytes[MULTIADDR_CAP],
    _datasetChecksum: bytes32,
) -> address:
    """
    @notice Address that `createDataset` gives for the same arguments.
    """
    return registry._predict(_datasetOwner, self._tail(_datasetName, _datasetMultiaddr, _datasetChecksum))


@external
@view
def resolve(_entry: address) -> (address, uint256):
    """
    @notice Owner of a dataset, zero when it is not registered here or before; datasets have no policy.
    """
    return registry._resolve(_entry)[0], 0


@internal
@pure
def _tail(
    name: String[NAME_CAP], multiaddr: Bytes[MULTIADDR_CAP], checksum: bytes32
) -> Bytes[registry.TAIL_CAP]:
    return concat(checksum, registry._size(len(name)), convert(name, Bytes[NAME_CAP]), multiaddr)
