#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize codesize
"""
@title HubViews
@license Apache-2.0
@notice The hub's part for what is only read. It is the last part: what is not here is nowhere.
@dev Runs on the hub's storage by delegate call, see Hub.
"""

from hub import contributions
from hub import deals
from hub import groups
from hub import ledger
from hub import orders
from hub import pages
from hub import state
from hub import tasks

initializes: state

interface AppEntry:
    def owner() -> address: view
    def m_appName() -> String[ENTRY_CAP]: view
    def m_appType() -> String[ENTRY_CAP]: view
    def m_appMultiaddr() -> Bytes[ENTRY_CAP]: view
    def m_appChecksum() -> bytes32: view
    def m_appMREnclave() -> Bytes[ENTRY_CAP]: view


interface DatasetEntry:
    def owner() -> address: view
    def m_datasetName() -> String[ENTRY_CAP]: view
    def m_datasetMultiaddr() -> Bytes[ENTRY_CAP]: view
    def m_datasetChecksum() -> bytes32: view


interface WorkerpoolEntry:
    def owner() -> address: view
    def m_workerpoolDescription() -> String[ENTRY_CAP]: view
    def m_workerStakeRatioPolicy() -> uint256: view
    def m_schedulerRewardRatioPolicy() -> uint256: view


struct DomainView:
    name: String[8]
    version: String[5]
    chainId: uint256
    verifyingContract: address


struct Category:
    name: String[state.CATEGORY_NAME_CAP]
    description: String[state.CATEGORY_DESCRIPTION_CAP]
    workClockTimeRef: uint256


struct Task:
    status: uint8
    dealid: bytes32
    idx: uint256
    timeref: uint256
    contributionDeadline: uint256
    revealDeadline: uint256
    finalDeadline: uint256
    consensusValue: bytes32
    revealCounter: uint256
    winnerCounter: uint256
    contributors: DynArray[address, state.CONTRIBUTORS_CAP]
    resultDigest: bytes32
    results: Bytes[pages.TAIL_BOUND]
    resultsTimestamp: uint256
    resultsCallback: Bytes[pages.TAIL_BOUND]


struct Contribution:
    status: uint8
    resultHash: bytes32
    resultSeal: bytes32
    enclaveChallenge: address
    weight: uint256


struct AppView:
    owner: address
    m_appName: String[ENTRY_CAP]
    m_appType: String[ENTRY_CAP]
    m_appMultiaddr: Bytes[ENTRY_CAP]
    m_appChecksum: bytes32
    m_appMREnclave: Bytes[ENTRY_CAP]


struct DatasetView:
    owner: address
    m_datasetName: String[ENTRY_CAP]
    m_datasetMultiaddr: Bytes[ENTRY_CAP]
    m_datasetChecksum: bytes32


struct WorkerpoolView:
    owner: address
    m_workerpoolDescription: String[ENTRY_CAP]
    m_workerStakeRatioPolicy: uint256
    m_schedulerRewardRatioPolicy: uint256


# The largest field of a registry's entry.
ENTRY_CAP: constant(uint256) = 4096

contribution_deadline_ratio: public(constant(uint256)) = deals.CONTRIBUTION_RATIO
reveal_deadline_ratio: public(constant(uint256)) = deals.REVEAL_RATIO
final_deadline_ratio: public(constant(uint256)) = deals.FINAL_RATIO
workerpool_stake_ratio: public(constant(uint256)) = deals.WORKERPOOL_STAKE_RATIO
kitty_ratio: public(constant(uint256)) = ledger.KITTY_RATIO
kitty_min: public(constant(uint256)) = ledger.KITTY_MIN
kitty_address: public(constant(address)) = ledger.KITTY
groupmember_purpose: public(constant(uint256)) = groups.MEMBER_PURPOSE

APP_REGISTRY: immutable(address)
DATASET_REGISTRY: immutable(address)
WORKERPOOL_REGISTRY: immutable(address)


@deploy
def __init__(app_registry: address, dataset_registry: address, workerpool_registry: address):
    """
    @notice Deploy this part; it must name the same registries as the hub.
    """
    APP_REGISTRY = app_registry
    DATASET_REGISTRY = dataset_registry
    WORKERPOOL_REGISTRY = workerpool_registry


@external
@payable
def __default__():
    """
    @notice No part knew the call.
    """
    raise "fallback-disabled"


# The hub itself


@external
@view
def appregistry() -> address:
    """
    @notice Registry of apps.
    """
    return APP_REGISTRY


@external
@view
def datasetregistry() -> address:
    """
    @notice Registry of datasets.
    """
    return DATASET_REGISTRY


@external
@view
def workerpoolregistry() -> address:
    """
    @notice Registry of workerpools.
    """
    return WORKERPOOL_REGISTRY


@external
@view
def domain() -> DomainView:
    """
    @notice EIP-712 domain of all orders.
    """
    return DomainView(name=orders.NAME, version=orders.VERSION, chainId=chain.id, verifyingContract=self)


@external
@view
def eip712domain_separator() -> bytes32:
    """
    @notice Hash of the domain.
    """
    return orders._domain_separator()


@external
@view
def countCategory() -> uint256:
    """
    @notice Number of categories.
    """
    return state.category_count


@external
@view
def viewCategory(_catid: uint256) -> Category:
    """
    @notice A category of tasks.
    """
    return self._category(_catid)


@external
@view
def viewCategoryABILegacy(
    _catid: uint256,
) -> (String[state.CATEGORY_NAME_CAP], String[state.CATEGORY_DESCRIPTION_CAP], uint256):
    """
    @notice viewCategory, unwrapped.
    """
    category: Category = self._category(_catid)
    return category.name, category.description, category.workClockTimeRef


@internal
@view
def _category(number: uint256) -> Category:
    assert number < state.category_count
    return Category(
        name=state.labels[number].name,
        description=state.labels[number].description,
        workClockTimeRef=state.clocks[number] & deals.MASK_40,
    )


# Resources


@external
@view
def viewApp(_app: address) -> AppView:
    """
    @notice An app's owner and fields.
    """
    entry: AppEntry = AppEntry(_app)
    return AppView(
        owner=staticcall entry.owner(),
        m_appName=staticcall entry.m_appName(),
        m_appType=staticcall entry.m_appType(),
        m_appMultiaddr=staticcall entry.m_appMultiaddr(),
        m_appChecksum=staticcall entry.m_appChecksum(),
        m_appMREnclave=staticcall entry.m_appMREnclave(),
    )


@external
@view
def viewDataset(_dataset: address) -> DatasetView:
    """
    @notice A dataset's owner and fields.
    """
    entry: DatasetEntry = DatasetEntry(_dataset)
    return DatasetView(
        owner=staticcall entry.owner(),
        m_datasetName=staticcall entry.m_datasetName(),
        m_datasetMultiaddr=staticcall entry.m_datasetMultiaddr(),
        m_datasetChecksum=staticcall entry.m_datasetChecksum(),
    )


@external
@view
def viewWorkerpool(_workerpool: address) -> WorkerpoolView:
    """
    @notice A workerpool's owner and policy.
    """
    entry: WorkerpoolEntry = WorkerpoolEntry(_workerpool)
    return WorkerpoolView(
        owner=staticcall entry.owner(),
        m_workerpoolDescription=staticcall entry.m_workerpoolDescription(),
        m_workerStakeRatioPolicy=staticcall entry.m_workerStakeRatioPolicy(),
        m_schedulerRewardRatioPolicy=staticcall entry.m_schedulerRewardRatioPolicy(),
    )


# Deals


@external
@view
def viewDeal(_id: bytes32) -> deals.Deal:
    """
    @notice A deal, all zero if there is none.
    """
    return deals._load_deal(_id)


@external
@view
def viewDealABILegacy_pt1(
    _id: bytes32,
) -> (address, address, uint256, address, address, uint256, address, address, uint256):
    """
    @notice The resources of viewDeal, unwrapped: pointer, owner and price of app, dataset and workerpool.
    """
    deal: deals.Deal = deals._load_deal(_id)
    return (
        deal.app.pointer,
        deal.app.owner,
        deal.app.price,
        deal.dataset.pointer,
        deal.dataset.owner,
        deal.dataset.price,
        deal.workerpool.pointer,
        deal.workerpool.owner,
        deal.workerpool.price,
    )


@external
@view
def viewDealABILegacy_pt2(
    _id: bytes32,
) -> (uint256, bytes32, address, address, address, String[pages.TAIL_BOUND]):
    """
    @notice Of viewDeal, unwrapped: trust, tag, requester, beneficiary, callback, params.
    """
    deal: deals.Deal = deals._load_deal(_id)
    return deal.trust, deal.tag, deal.requester, deal.beneficiary, deal.callback, deal.params


@external
@view
def viewConfigABILegacy(_id: bytes32) -> (uint256, uint256, uint256, uint256, uint256, uint256):
    """
    @notice Of viewDeal, unwrapped: category, startTime, botFirst, botSize, workerStake, schedulerRewardRatio.
    """
    deal: deals.Deal = deals._load_deal(_id)
    return deal.category, deal.startTime, deal.botFirst, deal.botSize, deal.workerStake, deal.schedulerRewardRatio


# Tasks


@external
@view
def viewTask(_id: bytes32) -> Task:
    """
    @notice A task, all zero if it was not initialized.
    """
    return self._task(_id)


@external
@view
def viewTaskABILegacy(
    _taskid: bytes32,
) -> (
    uint8,
    bytes32,
    uint256,
    uint256,
    uint256,
    uint256,
    uint256,
    bytes32,
    uint256,
    uint256,
    DynArray[address, state.CONTRIBUTORS_CAP],
    Bytes[pages.TAIL_BOUND],
):
    """
    @notice viewTask, unwrapped, without digest, timestamp and callback data.
    """
    task: Task = self._task(_taskid)
    return (
        task.status,
        task.dealid,
        task.idx,
        task.timeref,
        task.contributionDeadline,
        task.revealDeadline,
        task.finalDeadline,
        task.consensusValue,
        task.revealCounter,
        task.winnerCounter,
        task.contributors,
        task.results,
    )


@external
@view
def resultFor(_id: bytes32) -> Bytes[pages.TAIL_BOUND]:
    """
    @notice Callback data of a completed task (EIP-1154).
    """
    task: Task = self._task(_id)
    assert convert(task.status, uint256) == tasks.COMPLETED, "task-pending"
    return task.resultsCallback


@external
@view
def viewContribution(_taskid: bytes32, _worker: address) -> Contribution:
    """
    @notice What a worker contributed to a task, all zero if nothing.
    """
    return self._contribution(_taskid, _worker)


@external
@view
def viewContributionABILegacy(_taskid: bytes32, _worker: address) -> (uint8, bytes32, bytes32, address):
    """
    @notice viewContribution, unwrapped, without the weight.
    """
    contribution: Contribution = self._contribution(_taskid, _worker)
    return contribution.status, contribution.resultHash, contribution.resultSeal, contribution.enclaveChallenge


@internal
@view
def _task(task_id: bytes32) -> Task:
    """
    @dev See `tasks` for what is stored and what follows from it.
    """
    task: Task = empty(Task)
    word: uint256 = state.tasks[task_id]
    if word == 0:
        return task
    terms: deals.Terms = deals._load_terms(tasks._page(word))
    flags: uint256 = word >> tasks.FLAGS_SHIFT
    time: uint256 = (word >> tasks.TIME_SHIFT) & deals.MASK_40
    status: uint256 = tasks._status(word)
    task.status = convert(status, uint8)
    task.dealid = terms.id
    task.idx = (word >> tasks.INDEX_SHIFT) & deals.MASK_40
    task.timeref = terms.clock
    task.contributionDeadline = terms.start_time + terms.clock * deals.CONTRIBUTION_RATIO
    task.finalDeadline = terms.start_time + terms.clock * deals.FINAL_RATIO
    if time != 0:
        task.revealDeadline = time + terms.clock * deals.REVEAL_RATIO
    page: address = pages._address_of(task_id)
    start: uint256 = 33
    if flags & tasks.SOLO != 0:
        task.resultDigest = convert(pages._word(page, 33), bytes32)
        task.consensusValue = keccak256(concat(task_id, task.resultDigest))
        task.revealCounter = 1
        task.winnerCounter = 1
        task.contributors = [convert(pages._word(page, 53) & tasks.ADDRESS_MASK, address)]
        task.resultsTimestamp = time
        start = 53
        if flags & tasks.ENCLAVE != 0:
            start = 73
    else:
        task.consensusValue = state.ballots[task_id].consensusValue
        task.revealCounter = state.ballots[task_id].reveals
        task.winnerCounter = state.ballots[task_id].winners
        task.contributors = state.contributors[task_id]
        task.resultDigest = state.ballots[task_id].resultDigest
        task.resultsTimestamp = state.ballots[task_id].resultsTimestamp
    if status == tasks.COMPLETED:
        size: uint256 = pages._word(page, start + 2) & 65535
        body: Bytes[pages.TAIL_BOUND] = pages._tail(page, start + 2)
        task.results = slice(body, 0, size)
        task.resultsCallback = slice(body, size, len(body) - size)
    return task


@internal
@view
def _contribution(task_id: bytes32, worker: address) -> Contribution:
    word: uint256 = state.tasks[task_id]
    flags: uint256 = word >> tasks.FLAGS_SHIFT
    if flags & tasks.SOLO == 0:
        vote: state.Vote = state.votes[task_id][worker]
        return Contribution(
            status=convert(contributions._status(vote.record), uint8),
            resultHash=vote.resultHash,
            resultSeal=vote.resultSeal,
            enclaveChallenge=convert(vote.record & tasks.ADDRESS_MASK, address),
            weight=vote.record >> contributions.WEIGHT_SHIFT,
        )
    page: address = pages._address_of(task_id)
    if convert(pages._word(page, 53) & tasks.ADDRESS_MASK, address) != worker:
        return empty(Contribution)
    digest: bytes32 = convert(pages._word(page, 33), bytes32)
    enclave: address = empty(address)
    if flags & tasks.ENCLAVE != 0:
        enclave = convert(pages._word(page, 73) & tasks.ADDRESS_MASK, address)
    return Contribution(
        status=convert(contributions.PROVED, uint8),
        resultHash=keccak256(concat(task_id, digest)),
        resultSeal=keccak256(concat(convert(worker, bytes20), task_id, digest)),
        enclaveChallenge=enclave,
        weight=0,
    )
