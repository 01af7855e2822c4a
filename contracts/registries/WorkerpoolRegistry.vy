#pragma version 0.4.3
#pragma evm-version cancun
"""
@title WorkerpoolRegistry
@license Apache-2.0
@notice Registry of workerpools. Each is an ERC-721 token whose id is the workerpool's address.
@dev A token's 64-bit extra holds the policy: stake ratio (56 bits) << 8 | scheduler's reward ratio (8 bits).
"""

import ownership
import registry
import tokens

initializes: ownership
initializes: tokens
initializes: registry[ownership := ownership, tokens := tokens]
exports: (ownership.__interface__, tokens.__interface__, registry.__interface__)

interface Workerpool:
    def m_workerStakeRatioPolicy() -> uint256: view
    def m_schedulerRewardRatioPolicy() -> uint256: view


DESCRIPTION_CAP: constant(uint256) = 1024
DEFAULT_POLICY: constant(uint256) = (30 << 8) | 1


@deploy
def __init__(entry_blueprint: address):
    """
    @param entry_blueprint ERC-5202 blueprint of Workerpool.
    """
    ownership.__init__()
    tokens.__init__()
    registry.__init__("iExec Workerpool Registry (V5)", "iExecWorkerpoolV5", entry_blueprint)


@external
def createWorkerpool(_workerpoolOwner: address, _workerpoolDescription: String[DESCRIPTION_CAP]) -> address:
    """
    @notice Register a workerpool for an owner; anybody may. It starts with a stake ratio of 30 and a reward ratio of 1.
    @param _workerpoolDescription At most 1,024 bytes.
    @return The workerpool's address, the one `predictWorkerpool` tells.
    """
    return registry._create(
        _workerpoolOwner, convert(_workerpoolDescription, Bytes[DESCRIPTION_CAP]), DEFAULT_POLICY
    )


@external
@view
def predictWorkerpool(_workerpoolOwner: address, _workerpoolDescription: String[DESCRIPTION_CAP]) -> address:
    """
    @notice Address that `createWorkerpool` gives for the same arguments.
    """
    return registry._predict(_workerpoolOwner, convert(_workerpoolDescription, Bytes[DESCRIPTION_CAP]))


@external
def setPolicy(_workerStakeRatio: uint256, _schedulerRewardRatio: uint256):
    """
    @notice Only for a workerpool's own code, which has checked that its owner asks; see `Workerpool.changePolicy`.
    """
    assert tokens._owner_or_zero(convert(msg.sender, uint256)) != empty(address), "caller is not a workerpool"
    assert _schedulerRewardRatio <= 100
    assert _workerStakeRatio < 2**56
    tokens._set_extra(convert(msg.sender, uint256), (_workerStakeRatio << 8) | _schedulerRewardRatio)


@external
@view
def resolve(_entry: address) -> (address, uint256):
    """
    @notice Owner and policy of a workerpool, owner zero when it is not registered here or before.
    @return Owner, and (workerStakeRatio << 128) | schedulerRewardRatio.
    """
    owner: address = empty(address)
    policy: uint256 = 0
    older: bool = False
    owner, policy, older = registry._resolve(_entry)
    if older:
        stake_ratio: uint256 = staticcall Workerpool(_entry).m_workerStakeRatioPolicy()
        return owner, (stake_ratio << 128) | staticcall Workerpool(_entry).m_schedulerRewardRatioPolicy()
    return owner, ((policy >> 8) << 128) | (policy & 255)
