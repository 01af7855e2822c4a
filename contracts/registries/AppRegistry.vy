#pragma version 0.4.3
#pragma evm-version cancun
"""
@title AppRegistry
@license Apache-2.0
@notice Registry of apps. Each is an ERC-721 token whose id is the app's address.
"""

import ownership
import registry
import tokens

initializes: ownership
initializes: tokens
initializes: registry[ownership := ownership, tokens := tokens]
exports: (ownership.__interface__, tokens.__interface__, registry.__interface__)

NAME_CAP: constant(uint256) = 256
TYPE_CAP: constant(uint256) = 64
MULTIADDR_CAP: constant(uint256) = 1024
MRENCLAVE_CAP: constant(uint256) = 2048


@deploy
def __init__(entry_blueprint: address):
    """
    @param entry_blueprint ERC-5202 blueprint of App.
    """
    ownership.__init__()
    tokens.__init__()
    registry.__init__("iExec Application Registry (V5)", "iExecAppsV5", entry_blueprint)


@external
def createApp(
    _appOwner: address,
    _appName: String[NAME_CAP],
    _appType: String[TYPE_CAP],
    _appMultiaddr: Bytes[MULTIADDR_CAP],
    _appChecksum: bytes32,
    _appMREnclave: Bytes[MRENCLAVE_CAP],
) -> address:
    """
    @notice Register an app for an owner; anybody may.
    @param _appName At most 256 bytes.
    @param _appType At most 64 bytes.
    @param _appMultiaddr At most 1,024 bytes.
    @param _appMREnclave At most 2,048 bytes.
    @return The app's address, the one `predictApp` tells.
    """
    return registry._create(
        _appOwner, self._tail(_appName, _appType, _appMultiaddr, _appChecksum, _appMREnclave), 0
    )


@external
@view
def predictApp(
    _appOwner: address,
    _appName: String[NAME_CAP],
    _appType: String[TYPE_CAP],
    _appMultiaddr: Bytes[MULTIADDR_CAP],
    _appChecksum: bytes32,
    _appMREnclave: Bytes[MRENCLAVE_CAP],
) -> address:
    """
    @notice Address that `createApp` gives for the same arguments.
    """
    return registry._predict(_appOwner, self._tail(_appName, _appType, _appMultiaddr, _appChecksum, _appMREnclave))


@external
@view
def resolve(_entry: address) -> (address, uint256):
    """
    @notice Owner of an app, zero when it is not registered here or before; apps have no policy.
    """
    return registry._resolve(_entry)[0], 0


@internal
@pure
def _tail(
    name: String[NAME_CAP],
    type_: String[TYPE_CAP],
    multiaddr: Bytes[MULTIADDR_CAP],
    checksum: bytes32,
    mrenclave: Bytes[MRENCLAVE_CAP],
) -> Bytes[registry.TAIL_CAP]:
    return concat(
        checksum,
        registry._size(len(name)),
        registry._size(len(type_)),
        registry._size(len(multiaddr)),
        convert(name, Bytes[NAME_CAP]),
        convert(type_, Bytes[TYPE_CAP]),
        multiaddr,
        mrenclave,
    )
