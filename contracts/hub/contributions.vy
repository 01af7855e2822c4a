#pragma version 0.4.3
"""
@title Contributions
@license Apache-2.0
@notice Tasks that several workers do: they contribute sealed results until one is trusted enough, reveal it, and share the pay.
@dev A worker's weight grows with its score. Contributions of the same result multiply their weights; a result is trusted when
     weight * trust > (1 + all weights) * (trust - 1). A contribution's stored weight is the logarithm, by which pay is shared.
"""

from . import deals
from . import ledger
from . import pages
from . import settlement
from . import state
from . import tasks

uses: ledger
uses: pages
uses: settlement
uses: state
uses: tasks

event TaskReopen:
    taskid: indexed(bytes32)


event TaskClaimed:
    taskid: indexed(bytes32)


event AccurateContribution:
    worker: indexed(address)
    taskid: indexed(bytes32)


event FaultyContribution:
    worker: indexed(address)
    taskid: indexed(bytes32)


CONTRIBUTED: constant(uint256) = 1
PROVED: constant(uint256) = 2
REJECTED: constant(uint256) = 3

STATUS_SHIFT: constant(uint256) = 160
WEIGHT_SHIFT: constant(uint256) = 168
STATUS_MASK: constant(uint256) = 255 << 160


@internal
@pure
def _status(record: uint256) -> uint256:
    return (record >> STATUS_SHIFT) & 255


@internal
@pure
def _with_status(record: uint256, status: uint256) -> uint256:
    return (record & ~STATUS_MASK) | (status << STATUS_SHIFT)


@internal
def _contribute(
    task_id: bytes32,
    result_hash: bytes32,
    result_seal: bytes32,
    enclave: address,
    enclave_sign: Bytes[state.SIGN_CAP],
    authorization_sign: Bytes[state.SIGN_CAP],
):
    """
    @dev The caller's sealed result. May be the one that makes the consensus.
    """
    task: uint256 = state.tasks[task_id]
    assert tasks._status(task) == tasks.ACTIVE
    assert state.votes[task_id][msg.sender].record == 0
    terms: deals.Terms = deals._load_terms(tasks._page(task))
    tasks._check_contribution(
        task_id, terms, msg.sender, result_hash, result_seal, enclave, enclave_sign, authorization_sign
    )

    ledger._lock(msg.sender, terms.worker_stake)
    ledger._settle_escrow(terms.worker_stake, 0)

    weight: uint256 = max(state.scores[msg.sender] // 3, 3) - 1
    state.votes[task_id][msg.sender] = state.Vote(
        resultHash=result_hash,
        resultSeal=result_seal,
        record=convert(enclave, uint256) | (CONTRIBUTED << STATUS_SHIFT) | (self._log2(weight) << WEIGHT_SHIFT),
    )
    state.contributors[task_id].append(msg.sender)
    log tasks.TaskContribute(taskid=task_id, worker=msg.sender, hash=result_hash)

    before: uint256 = state.groups[task_id][result_hash]
    group: uint256 = max(before, 1) * weight
    total: uint256 = state.ballots[task_id].total + (group - before)
    state.groups[task_id][result_hash] = group
    state.ballots[task_id].total = total
    task |= tasks.CONTESTED << tasks.FLAGS_SHIFT
    if group * terms.trust > (1 + total) * (terms.trust - 1):
        winners: uint256 = 0
        for worker: address in state.contributors[task_id]:
            if (
                state.votes[task_id][worker].resultHash == result_hash
                and self._status(state.votes[task_id][worker].record) == CONTRIBUTED
            ):
                winners += 1
        state.ballots[task_id].consensusValue = result_hash
        state.ballots[task_id].winners = winners
        task = tasks._with_status(task, tasks.REVEALING) | (block.timestamp << tasks.TIME_SHIFT)
        log tasks.TaskConsensus(taskid=task_id, consensus=result_hash)
    state.tasks[task_id] = task


@internal
def _reveal(task_id: bytes32, digest: bytes32):
    """
    @dev The caller shows that it had the trusted result itself.
    """
    task: uint256 = state.tasks[task_id]
    assert tasks._status(task) == tasks.REVEALING
    terms: deals.Terms = deals._load_terms(tasks._page(task))
    assert block.timestamp < self._reveal_deadline(task, terms)
    vote: state.Vote = state.votes[task_id][msg.sender]
    assert self._status(vote.record) == CONTRIBUTED
    assert vote.resultHash == state.ballots[task_id].consensusValue
    assert vote.resultHash == keccak256(concat(task_id, digest))
    assert vote.resultSeal == keccak256(concat(convert(msg.sender, bytes20), task_id, digest))
    state.votes[task_id][msg.sender].record = self._with_status(vote.record, PROVED)
    state.ballots[task_id].reveals += 1
    state.ballots[task_id].resultDigest = digest
    log tasks.TaskReveal(taskid=task_id, worker=msg.sender, digest=digest)


@internal
def _reopen(task_id: bytes32):
    """
    @dev Nobody revealed in time: the winners are rejected and others may contribute.
    """
    task: uint256 = state.tasks[task_id]
    assert tasks._status(task) == tasks.REVEALING
    terms: deals.Terms = deals._load_terms(tasks._page(task))
    assert msg.sender == terms.workerpool_owner
    assert block.timestamp < self._final_deadline(terms)
    assert self._reveal_deadline(task, terms) <= block.timestamp
    assert state.ballots[task_id].reveals == 0
    consensus: bytes32 = state.ballots[task_id].consensusValue
    for worker: address in state.contributors[task_id]:
        if state.votes[task_id][worker].resultHash == consensus:
            state.votes[task_id][worker].record = self._with_status(
                state.votes[task_id][worker].record, REJECTED
            )
    state.ballots[task_id].total -= state.groups[task_id][consensus]
    state.groups[task_id][consensus] = 0
    state.ballots[task_id].consensusValue = empty(bytes32)
    state.ballots[task_id].winners = 0
    # The time of the consensus goes, what was contributed stays.
    state.tasks[task_id] = tasks._with_status(task, tasks.ACTIVE) & ~(deals.MASK_40 << tasks.TIME_SHIFT)
    log TaskReopen(taskid=task_id)


@internal
def _finalize(task_id: bytes32, results: Bytes[state.RESULTS_CAP], results_callback: Bytes[state.RESULTS_CAP]):
    """
    @dev The scheduler ends a task whose result was revealed, by all winners or as far as the deadline allowed.
    """
    task: uint256 = state.tasks[task_id]
    assert tasks._status(task) == tasks.REVEALING
    terms: deals.Terms = deals._load_terms(tasks._page(task))
    assert msg.sender == terms.workerpool_owner
    assert block.timestamp < self._final_deadline(terms)
    reveals: uint256 = state.ballots[task_id].reveals
    assert reveals == state.ballots[task_id].winners or (
        reveals != 0 and self._reveal_deadline(task, terms) <= block.timestamp
    )
    digest: bytes32 = state.ballots[task_id].resultDigest
    tasks._check_callback(terms.callback, digest, results_callback)

    state.ballots[task_id].resultsTimestamp = block.timestamp
    state.tasks[task_id] = tasks._with_status(task, tasks.COMPLETED)
    state.page = concat(
        x"00", digest, convert(convert(len(results), uint16), bytes2), results, results_callback
    )
    pages._write(task_id)
    self._pay_workers(task_id, terms, settlement._pay_providers(task_id, terms))
    log tasks.TaskFinalize(taskid=task_id, results=results)
    tasks._call_back(terms.callback, task_id, results_callback)


@internal
def _pay_workers(task_id: bytes32, terms: deals.Terms, paid_before: uint256):
    """
    @dev Winners who revealed get their stakes back and share the workerpool's price and the others' stakes.
    """
    contributors: DynArray[address, state.CONTRIBUTORS_CAP] = state.contributors[task_id]
    total_reward: uint256 = terms.workerpool_price
    total_weight: uint256 = 0
    for worker: address in contributors:
        record: uint256 = state.votes[task_id][worker].record
        if self._status(record) == PROVED:
            total_weight += record >> WEIGHT_SHIFT
        else:
            total_reward += terms.worker_stake
    workers_reward: uint256 = total_reward * (100 - terms.reward_ratio) // 100
    paid: uint256 = paid_before + total_reward
    remainder: uint256 = total_reward
    for worker: address in contributors:
        record: uint256 = state.votes[task_id][worker].record
        if self._status(record) == PROVED:
            reward: uint256 = workers_reward * (record >> WEIGHT_SHIFT) // total_weight
            remainder -= reward
            paid += terms.worker_stake
            ledger._unlock(worker, terms.worker_stake)
            ledger._reward(worker, reward, task_id)
            # One's own word proves nothing.
            if len(contributors) > 1:
                state.scores[worker] += 1
                log AccurateContribution(worker=worker, taskid=task_id)
        else:
            ledger._seize(worker, terms.worker_stake, task_id)
            state.scores[worker] = state.scores[worker] * 2 // 3
            log FaultyContribution(worker=worker, taskid=task_id)
    ledger._reward(terms.workerpool_owner, remainder, task_id)
    ledger._settle_escrow(0, paid)


@internal
def _claim(task_id: bytes32):
    """
    @dev End a task whose time is over without a result. Anyone may; what a worker staked is given back.
    """
    task: uint256 = state.tasks[task_id]
    status: uint256 = tasks._status(task)
    assert status == tasks.ACTIVE or status == tasks.REVEALING
    terms: deals.Terms = deals._load_terms(tasks._page(task))
    assert block.timestamp >= self._final_deadline(terms)
    state.tasks[task_id] = tasks._with_status(task, tasks.FAILED)
    settlement._refund(task_id, terms)
    unlocked: uint256 = 0
    for worker: address in state.contributors[task_id]:
        ledger._unlock(worker, terms.worker_stake)
        unlocked += terms.worker_stake
    ledger._settle_escrow(0, unlocked)
    log TaskClaimed(taskid=task_id)


@internal
@pure
def _reveal_deadline(task: uint256, terms: deals.Terms) -> uint256:
    return ((task >> tasks.TIME_SHIFT) & deals.MASK_40) + terms.clock * deals.REVEAL_RATIO


@internal
@pure
def _final_deadline(terms: deals.Terms) -> uint256:
    return terms.start_time + terms.clock * deals.FINAL_RATIO


@internal
@pure
def _log2(number: uint256) -> uint256:
    """
    @dev Rounded down; `number` is at least 1.
    """
    left: uint256 = number
    result: uint256 = 0
    for i: uint256 in range(256):
        left >>= 1
        if left == 0:
            break
        result += 1
    return result
