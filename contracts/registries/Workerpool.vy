#pragma version 0.4.3
#pragma evm-version cancun
"""
@title Workerpool
@license Apache-2.0
@notice A workerpool in the WorkerpoolRegistry.
@dev tail = description. The policy lives in the registry beside the owner, so that a match reads both with one load.
"""

import entry

initializes: entry
exports: entry.__interface__

interface WorkerpoolRegistry:
    def resolve(_entry: address) -> (address, uint256): view
    def setPolicy(_workerStakeRatio: uint256, _schedulerRewardRatio: uint256): nonpayable


event PolicyUpdate:
    oldWorkerStakeRatioPolicy: uint256
    newWorkerStakeRatioPolicy: uint256
    oldSchedulerRewardRatioPolicy: uint256
    newSchedulerRewardRatioPolicy: uint256


@deploy
def __init__():
    entry.__init__()


@external
@view
def m_workerpoolDescription() -> String[entry.TAIL_BOUND]:
    """
    @notice What the workerpool says about itself.
    """
    return convert(entry._tail(), String[entry.TAIL_BOUND])


@external
@view
def m_workerStakeRatioPolicy() -> uint256:
    """
    @notice Stake of a worker in percent of the workerpool's price.
    """
    return self._policy() >> 128


@external
@view
def m_schedulerRewardRatioPolicy() -> uint256:
    """
    @notice Share of the reward that the scheduler keeps, in percent.
    """
    return self._policy() & (2**128 - 1)


@external
def changePolicy(_newWorkerStakeRatioPolicy: uint256, _newSchedulerRewardRatioPolicy: uint256):
    """
    @notice Set both ratios for deals made from now on; only the owner may.
    @param _newWorkerStakeRatioPolicy In percent, below 2**56.
    @param _newSchedulerRewardRatioPolicy In percent, at most 100.
    """
    entry._check_owner()
    assert _newSchedulerRewardRatioPolicy <= 100
    old: uint256 = self._policy()
    extcall WorkerpoolRegistry(entry.registry).setPolicy(_newWorkerStakeRatioPolicy, _newSchedulerRewardRatioPolicy)
    log PolicyUpdate(
        oldWorkerStakeRatioPolicy=old >> 128,
        newWorkerStakeRatioPolicy=_newWorkerStakeRatioPolicy,
        oldSchedulerRewardRatioPolicy=old & (2**128 - 1),
        newSchedulerRewardRatioPolicy=_newSchedulerRewardRatioPolicy,
    )


@internal
@view
def _policy() -> uint256:
    return (staticcall WorkerpoolRegistry(entry.registry).resolve(self))[1]
