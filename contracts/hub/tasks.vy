#pragma version 0.4.3
"""
@title Tasks
@license Apache-2.0
@notice A task from its initialization to its end, as far as every task goes through it.
@dev A task is one word: its deal's page (160) | status (8) | index (40) | time (40) | flags (8), where time is that of the
     consensus. All deadlines follow from it and from the deal. What a finished task leaves behind is a page with the task's
     id as salt; offsets in bytes:

       0  STOP
       1  result digest (32)
      33  worker (20) if SOLO, enclave challenge (20) if SOLO and ENCLAVE, length of the results (2), results, callback data
"""

from . import deals
from . import ledger
from . import pages
from . import settlement
from . import signatures
from . import state

uses: pages
uses: settlement
uses: state

event TaskInitialize:
    taskid: indexed(bytes32)
    workerpool: indexed(address)


event TaskContribute:
    taskid: indexed(bytes32)
    worker: indexed(address)
    hash: bytes32


event TaskConsensus:
    taskid: indexed(bytes32)
    consensus: bytes32


event TaskReveal:
    taskid: indexed(bytes32)
    worker: indexed(address)
    digest: bytes32


event TaskFinalize:
    taskid: indexed(bytes32)
    results: Bytes[state.RESULTS_CAP]


ACTIVE: constant(uint256) = 1
REVEALING: constant(uint256) = 2
COMPLETED: constant(uint256) = 3
FAILED: constant(uint256) = 4

STATUS_SHIFT: constant(uint256) = 160
INDEX_SHIFT: constant(uint256) = 168
TIME_SHIFT: constant(uint256) = 208
FLAGS_SHIFT: constant(uint256) = 248
MASK_8: constant(uint256) = 255
ADDRESS_MASK: constant(uint256) = 2**160 - 1

# One worker contributed and finalized in one call.
SOLO: constant(uint256) = 1
# That worker ran in an enclave.
ENCLAVE: constant(uint256) = 2
# Somebody contributed.
CONTESTED: constant(uint256) = 4


@internal
@pure
def _id(deal_id: bytes32, index: uint256) -> bytes32:
    return keccak256(concat(deal_id, convert(index, bytes32)))


@internal
@pure
def _status(task: uint256) -> uint256:
    return (task >> STATUS_SHIFT) & MASK_8


@internal
@pure
def _page(task: uint256) -> address:
    return convert(task & ADDRESS_MASK, address)


@internal
@pure
def _with_status(task: uint256, status: uint256) -> uint256:
    """
    @dev The same task with another status.
    """
    return (task & ~(MASK_8 << STATUS_SHIFT)) | (status << STATUS_SHIFT)


@internal
def _initialize(deal_id: bytes32, index: uint256) -> bytes32:
    """
    @dev Reverts if there is no such deal, the index is not its own, or the task exists.
    """
    page: address = pages._address_of(deal_id)
    # First index and number of tasks, then the workerpool; there is nothing to slice if there is no deal.
    head: Bytes[52] = slice(page.code, 97, 52)
    bounds: uint256 = extract32(head, 0, output_type=uint256)
    first: uint256 = (bounds >> 56) & deals.MASK_40
    assert index >= first and unsafe_sub(index, first) < (bounds >> 16) & deals.MASK_40
    task_id: bytes32 = self._id(deal_id, index)
    assert state.tasks[task_id] == 0
    state.tasks[task_id] = convert(page, uint256) | (ACTIVE << STATUS_SHIFT) | (index << INDEX_SHIFT)
    log TaskInitialize(
        taskid=task_id,
        workerpool=convert(extract32(head, 20, output_type=uint256) & ADDRESS_MASK, address),
    )
    return task_id


@internal
@view
def _check_contribution(
    task_id: bytes32,
    terms: deals.Terms,
    worker: address,
    result_hash: bytes32,
    result_seal: bytes32,
    enclave: address,
    enclave_sign: Bytes[state.SIGN_CAP],
    authorization_sign: Bytes[state.SIGN_CAP],
):
    """
    @dev The scheduler let this worker (and enclave) do this task, and the enclave signed this result. With a teebroker set it,
         not the workerpool's owner, speaks for enclaves.
    """
    assert block.timestamp < terms.start_time + terms.clock * deals.CONTRIBUTION_RATIO
    authority: address = terms.workerpool_owner
    if enclave != empty(address):
        broker: address = convert(state.broker & ADDRESS_MASK, address)
        if broker != empty(address):
            authority = broker
        assert signatures._verify(
            enclave, signatures._message(keccak256(concat(result_hash, result_seal))), enclave_sign
        )
    else:
        assert not terms.tee
    assert signatures._verify(
        authority,
        signatures._message(keccak256(concat(convert(worker, bytes20), task_id, convert(enclave, bytes20)))),
        authorization_sign,
    )


@internal
@pure
def _check_callback(callback: address, digest: bytes32, results_callback: Bytes[state.RESULTS_CAP]):
    """
    @dev Callback data is what the digest says, and only a deal without a callback may go without.
    """
    if callback != empty(address) or len(results_callback) != 0:
        assert keccak256(results_callback) == digest


@internal
def _contribute_and_finalize(
    task_id: bytes32,
    digest: bytes32,
    results: Bytes[state.RESULTS_CAP],
    results_callback: Bytes[state.RESULTS_CAP],
    enclave: address,
    enclave_sign: Bytes[state.SIGN_CAP],
    authorization_sign: Bytes[state.SIGN_CAP],
):
    """
    @dev All of a task with one worker (the caller) in one step.
    """
    task: uint256 = state.tasks[task_id]
    assert self._status(task) == ACTIVE and task >> FLAGS_SHIFT == 0
    terms: deals.Terms = deals._load_terms(self._page(task))
    assert terms.trust == 1
    self._check_callback(terms.callback, digest, results_callback)
    result_hash: bytes32 = keccak256(concat(task_id, digest))
    result_seal: bytes32 = keccak256(concat(convert(msg.sender, bytes20), task_id, digest))
    self._check_contribution(
        task_id, terms, msg.sender, result_hash, result_seal, enclave, enclave_sign, authorization_sign
    )

    flags: uint256 = SOLO
    size: bytes2 = convert(convert(len(results), uint16), bytes2)
    if enclave == empty(address):
        state.page = concat(x"00", digest, convert(msg.sender, bytes20), size, results, results_callback)
    else:
        flags = SOLO | ENCLAVE
        state.page = concat(
            x"00", digest, convert(msg.sender, bytes20), convert(enclave, bytes20), size, results, results_callback
        )
    state.tasks[task_id] = (
        self._with_status(task, COMPLETED) | (block.timestamp << TIME_SHIFT) | (flags << FLAGS_SHIFT)
    )
    pages._write(task_id)
    settlement._pay_single_worker(task_id, terms, msg.sender)
    log TaskContribute(taskid=task_id, worker=msg.sender, hash=result_hash)
    log TaskConsensus(taskid=task_id, consensus=result_hash)
    log TaskReveal(taskid=task_id, worker=msg.sender, digest=digest)
    log TaskFinalize(taskid=task_id, results=results)
    self._call_back(terms.callback, task_id, results_callback)


@internal
def _call_back(callback: address, task_id: bytes32, results_callback: Bytes[state.RESULTS_CAP]):
    """
    @dev Hand the result to the requester's contract (EIP-1154). Whatever it does, payment stands; but a caller that leaves it
         less gas than promised fails as a whole.
    """
    if callback == empty(address):
        return
    promised: uint256 = state.broker >> 160
    success: bool = raw_call(
        callback,
        abi_encode(task_id, results_callback, method_id=method_id("receiveResult(bytes32,bytes)")),
        gas=promised,
        revert_on_failure=False,
    )
    assert msg.gas > promised // 63
