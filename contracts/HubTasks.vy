#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize codesize
"""
@title HubTasks
@license Apache-2.0
@notice The hub's part for tasks that several workers do, and for those that nobody finished.
@dev Runs on the hub's storage by delegate call, see Hub.
"""

from hub import contributions
from hub import ledger
from hub import pages
from hub import settlement
from hub import state
from hub import tasks

initializes: state
initializes: ledger[state := state]
initializes: pages[state := state]
initializes: settlement[ledger := ledger]
initializes: tasks[pages := pages, settlement := settlement, state := state]
initializes: contributions[ledger := ledger, pages := pages, settlement := settlement, state := state, tasks := tasks]

ANSWER_CAP: constant(uint256) = 40960

NEXT_PART: immutable(address)


@deploy
def __init__(next_part: address):
    """
    @notice Deploy this part.
    @param next_part The deployed HubViews.
    """
    NEXT_PART = next_part


@external
@payable
@raw_return
def __default__() -> Bytes[ANSWER_CAP]:
    """
    @notice What is not here is a later part's.
    """
    return raw_call(NEXT_PART, msg.data, max_outsize=ANSWER_CAP, is_delegate_call=True)


@external
@nonreentrant
def contribute(
    _taskid: bytes32,
    _resultHash: bytes32,
    _resultSeal: bytes32,
    _enclaveChallenge: address,
    _enclaveSign: Bytes[state.SIGN_CAP],
    _authorizationSign: Bytes[state.SIGN_CAP],
):
    """
    @notice Commit to a task's result and lock the stake for it.
    @param _resultHash keccak256(task id || result digest).
    @param _resultSeal keccak256(worker || task id || result digest).
    @param _enclaveSign personal_sign by the enclave's key over keccak256(resultHash || resultSeal).
    @param _authorizationSign personal_sign by the workerpool's owner (or the teebroker) over keccak256(worker || task || enclave).
    """
    contributions._contribute(
        _taskid, _resultHash, _resultSeal, _enclaveChallenge, _enclaveSign, _authorizationSign
    )


@external
@nonreentrant
def reveal(_taskid: bytes32, _resultDigest: bytes32):
    """
    @notice Show the digest that one's contribution to the trusted result committed to.
    """
    contributions._reveal(_taskid, _resultDigest)


@external
@nonreentrant
def reopen(_taskid: bytes32):
    """
    @notice Ask for other contributions, as the workerpool's owner, when nobody revealed in time.
    """
    contributions._reopen(_taskid)


@external
@nonreentrant
def finalize(
    _taskid: bytes32, _results: Bytes[state.RESULTS_CAP], _resultsCallback: Bytes[state.RESULTS_CAP]
):
    """
    @notice Publish a revealed result and pay, as the workerpool's owner.
    """
    contributions._finalize(_taskid, _results, _resultsCallback)


@external
@nonreentrant
def claim(_taskid: bytes32):
    """
    @notice Refund a task that was not finished in its time. Anyone may.
    """
    contributions._claim(_taskid)


@external
@nonreentrant
def claimArray(_taskids: DynArray[bytes32, state.BATCH_CAP]) -> bool:
    """
    @notice Refund several tasks, at most 64.
    """
    for task_id: bytes32 in _taskids:
        contributions._claim(task_id)
    return True


@external
@nonreentrant
def initializeAndClaimArray(
    _dealids: DynArray[bytes32, state.BATCH_CAP], _indexes: DynArray[uint256, state.BATCH_CAP]
) -> bool:
    """
    @notice Refund several tasks that were never even opened, at most 64.
    """
    assert len(_dealids) == len(_indexes)
    for i: uint256 in range(len(_dealids), bound=state.BATCH_CAP):
        contributions._claim(tasks._initialize(_dealids[i], _indexes[i]))
    return True
