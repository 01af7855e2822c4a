#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize gas
"""
@title Hub
@license Apache-2.0
@notice The marketplace of computing power: orders are matched into deals, tasks are contributed to, everyone is paid.
        The interface is iExec's PoCo 6.2.
@dev This is the address everyone talks to. It holds the calls that every task pays for; all others are in parts that run on
     this contract's storage by delegate call, each handing on what it does not know: HubOrders, HubAccounts, HubTasks, HubViews.
"""

from hub import deals
from hub import groups
from hub import ledger
from hub import marks
from hub import operations
from hub import orders
from hub import pages
from hub import settlement
from hub import state
from hub import tasks

initializes: state
initializes: ledger[state := state]
initializes: pages[state := state]
initializes: marks[state := state]
initializes: operations[marks := marks]
initializes: settlement[ledger := ledger]
initializes: tasks[pages := pages, settlement := settlement, state := state]

interface Registry:
    def resolve(_entry: address) -> (address, uint256): view


event OwnershipTransferred:
    previousOwner: indexed(address)
    newOwner: indexed(address)


event SchedulerNotice:
    workerpool: indexed(address)
    dealid: bytes32


event OrdersMatched:
    dealid: bytes32
    appHash: bytes32
    datasetHash: bytes32
    workerpoolHash: bytes32
    requestHash: bytes32
    volume: uint256


event SignedDatasetOrder:
    datasetHash: bytes32


event ClosedDatasetOrder:
    datasetHash: bytes32


# The largest answer of a part.
ANSWER_CAP: constant(uint256) = 40960
TEE: constant(bytes32) = 0x0000000000000000000000000000000000000000000000000000000000000001
# Tag bits that name a TEE framework (scone, gramine, tdx); a dataset's are of no account.
FRAMEWORKS: constant(bytes32) = 0x000000000000000000000000000000000000000000000000000000000000000e
DEFAULT_CALLBACK_GAS: constant(uint256) = 200000
# Results, callback data, enclave's and scheduler's signature in a batch: smaller than alone, because each has its place in memory.
BATCH_RESULTS_CAP: constant(uint256) = 256
BATCH_CALLBACK_CAP: constant(uint256) = 512
BATCH_SIGN_CAP: constant(uint256) = 256

APP_REGISTRY: immutable(address)
DATASET_REGISTRY: immutable(address)
WORKERPOOL_REGISTRY: immutable(address)
NEXT_PART: immutable(address)


@deploy
def __init__(app_registry: address, dataset_registry: address, workerpool_registry: address, next_part: address):
    """
    @notice Deploy the hub over its parts. The caller owns it.
    @param next_part The deployed HubOrders, which must name the same registries.
    """
    APP_REGISTRY = app_registry
    DATASET_REGISTRY = dataset_registry
    WORKERPOOL_REGISTRY = workerpool_registry
    NEXT_PART = next_part
    state.owner = msg.sender
    state.broker = DEFAULT_CALLBACK_GAS << 160
    state.escrow = ledger.ESCROW_MARK
    log OwnershipTransferred(previousOwner=empty(address), newOwner=msg.sender)


@external
@payable
@raw_return
def __default__() -> Bytes[ANSWER_CAP]:
    """
    @notice Every call that is not here, by way of the parts; and the answer to a page under construction.
    """
    if len(msg.data) == 0 and len(state.page) != 0:
        return state.page
    assert len(msg.data) >= 4, "fallback-disabled"
    return raw_call(NEXT_PART, msg.data, max_outsize=ANSWER_CAP, is_delegate_call=True)


@external
@nonreentrant
def matchOrders(
    _apporder: orders.AppOrder,
    _datasetorder: orders.DatasetOrder,
    _workerpoolorder: orders.WorkerpoolOrder,
    _requestorder: orders.RequestOrder,
) -> bytes32:
    """
    @notice Make a deal of four orders. Anyone may; the requester pays, or whoever came by `sponsorMatchOrders`.
    @return The deal's id.
    """
    sponsor: address = state.patron
    if sponsor == empty(address):
        sponsor = _requestorder.requester
    else:
        state.patron = empty(address)
    has_dataset: bool = _datasetorder.dataset != empty(address)

    # What is offered is what is asked for.
    assert _requestorder.category == _workerpoolorder.category, "iExecV5-matchOrders-0x00"
    clock: uint256 = state.clocks[_requestorder.category]
    assert clock != 0, "iExecV5-matchOrders-0x01"
    assert _requestorder.trust <= _workerpoolorder.trust, "iExecV5-matchOrders-0x02"
    assert _apporder.appprice <= _requestorder.appmaxprice, "iExecV5-matchOrders-0x03"
    assert _datasetorder.datasetprice <= _requestorder.datasetmaxprice, "iExecV5-matchOrders-0x04"
    assert _workerpoolorder.workerpoolprice <= _requestorder.workerpoolmaxprice, "iExecV5-matchOrders-0x05"
    tag: bytes32 = _apporder.tag | (_datasetorder.tag & ~FRAMEWORKS) | _requestorder.tag
    assert tag & ~_workerpoolorder.tag == empty(bytes32), "iExecV5-matchOrders-0x06"
    assert tag & ~_apporder.tag & TEE == empty(bytes32), "iExecV5-matchOrders-0x07"

    # Everyone is whom the others want to deal with.
    assert _requestorder.app == _apporder.app, "iExecV5-matchOrders-0x10"
    assert _requestorder.dataset == _datasetorder.dataset, "iExecV5-matchOrders-0x11"
    assert groups._admits(_requestorder.workerpool, _workerpoolorder.workerpool), "iExecV5-matchOrders-0x12"
    assert groups._admits(_apporder.datasetrestrict, _datasetorder.dataset), "iExecV5-matchOrders-0x13"
    assert groups._admits(_apporder.workerpoolrestrict, _workerpoolorder.workerpool), "iExecV5-matchOrders-0x14"
    assert groups._admits(_apporder.requesterrestrict, _requestorder.requester), "iExecV5-matchOrders-0x15"
    if has_dataset:
        assert groups._admits(_datasetorder.apprestrict, _apporder.app), "iExecV5-matchOrders-0x16"
        assert groups._admits(_datasetorder.workerpoolrestrict, _workerpoolorder.workerpool), "iExecV5-matchOrders-0x17"
        assert groups._admits(_datasetorder.requesterrestrict, _requestorder.requester), "iExecV5-matchOrders-0x18"
    assert groups._admits(_workerpoolorder.apprestrict, _apporder.app), "iExecV5-matchOrders-0x19"
    assert groups._admits(_workerpoolorder.datasetrestrict, _datasetorder.dataset), "iExecV5-matchOrders-0x1a"
    assert groups._admits(_workerpoolorder.requesterrestrict, _requestorder.requester), "iExecV5-matchOrders-0x1b"

    # Everything is registered, and its owner agreed.
    separator: bytes32 = orders._domain_separator()
    policy: uint256 = 0

    app_owner: address = empty(address)
    app_owner, policy = staticcall Registry(APP_REGISTRY).resolve(_apporder.app)
    assert app_owner != empty(address), "iExecV5-matchOrders-0x20"
    app_hash: bytes32 = orders._digest(separator, orders._app_struct(_apporder))
    app_mark: uint256 = state.marks[app_hash]
    assert marks._is_authentic(app_owner, app_hash, _apporder.sign, app_mark), "iExecV5-matchOrders-0x21"

    dataset_owner: address = empty(address)
    dataset_hash: bytes32 = orders._digest(separator, orders._dataset_struct(_datasetorder))
    dataset_mark: uint256 = 0
    if has_dataset:
        dataset_owner, policy = staticcall Registry(DATASET_REGISTRY).resolve(_datasetorder.dataset)
        assert dataset_owner != empty(address), "iExecV5-matchOrders-0x30"
        dataset_mark = state.marks[dataset_hash]
        assert marks._is_authentic(dataset_owner, dataset_hash, _datasetorder.sign, dataset_mark), "iExecV5-matchOrders-0x31"

    workerpool_owner: address = empty(address)
    workerpool_owner, policy = staticcall Registry(WORKERPOOL_REGISTRY).resolve(_workerpoolorder.workerpool)
    assert workerpool_owner != empty(address), "iExecV5-matchOrders-0x40"
    workerpool_hash: bytes32 = orders._digest(separator, orders._workerpool_struct(_workerpoolorder))
    workerpool_mark: uint256 = state.marks[workerpool_hash]
    assert marks._is_authentic(
        workerpool_owner, workerpool_hash, _workerpoolorder.sign, workerpool_mark
    ), "iExecV5-matchOrders-0x41"

    # The request's struct hash is taken in place: passed on, its parameters would be copied.
    request_hash: bytes32 = orders._digest(
        separator,
        keccak256(
            abi_encode(
                orders.REQUEST_TYPE,
                _requestorder.app,
                _requestorder.appmaxprice,
                _requestorder.dataset,
                _requestorder.datasetmaxprice,
                _requestorder.workerpool,
                _requestorder.workerpoolmaxprice,
                _requestorder.requester,
                _requestorder.volume,
                _requestorder.tag,
                _requestorder.category,
                _requestorder.trust,
                _requestorder.beneficiary,
                _requestorder.callback,
                keccak256(_requestorder.params),
                _requestorder.salt,
            )
        ),
    )
    request_mark: uint256 = state.marks[request_hash]
    assert marks._is_authentic(
        _requestorder.requester, request_hash, _requestorder.sign, request_mark
    ), "iExecV5-matchOrders-0x50"

    # As much as all of them have left.
    consumed: uint256 = request_mark & marks.CONSUMED_MASK
    deal_id: bytes32 = deals._id(request_hash, consumed)
    volume: uint256 = marks._left(request_mark, min(_requestorder.volume, deals.VOLUME_CAP))
    if consumed == 0 and pages._address_of(deal_id).codesize != 0:
        volume = 0
    volume = min(volume, marks._left(app_mark, _apporder.volume))
    volume = min(volume, marks._left(workerpool_mark, _workerpoolorder.volume))
    if has_dataset:
        volume = min(volume, marks._left(dataset_mark, _datasetorder.volume))
    assert volume != 0, "iExecV5-matchOrders-0x60"

    state.marks[app_hash] = unsafe_add(app_mark, volume)
    state.marks[workerpool_hash] = unsafe_add(workerpool_mark, volume)
    if has_dataset:
        state.marks[dataset_hash] = unsafe_add(dataset_mark, volume)
    # A request used up at once needs no mark: its deal is one (see `marks`).
    if volume != _requestorder.volume:
        state.marks[request_hash] = unsafe_add(request_mark, volume)

    # The money is locked before the deal is written, which bounds every price.
    dataset_price: uint256 = 0
    if has_dataset:
        dataset_price = _datasetorder.datasetprice
    cost: uint256 = (_apporder.appprice + dataset_price + _workerpoolorder.workerpoolprice) * volume
    stake: uint256 = _workerpoolorder.workerpoolprice * deals.WORKERPOOL_STAKE_RATIO // 100 * volume
    ledger._lock(sponsor, cost)
    ledger._lock(workerpool_owner, stake)
    ledger._settle_escrow(cost + stake, 0)

    assert _requestorder.trust <= deals.MASK_32 and policy >> 128 <= deals.MASK_24
    flags: uint256 = 0
    dataset_part: Bytes[40] = b""
    beneficiary_part: Bytes[20] = b""
    callback_part: Bytes[20] = b""
    sponsor_part: Bytes[20] = b""
    tag_part: Bytes[32] = b""
    if has_dataset:
        flags = deals.HAS_DATASET
        dataset_part = concat(convert(_datasetorder.dataset, bytes20), convert(dataset_owner, bytes20))
    if _requestorder.beneficiary != _requestorder.requester:
        flags |= deals.HAS_BENEFICIARY
        beneficiary_part = slice(convert(_requestorder.beneficiary, bytes32), 12, 20)
    if _requestorder.callback != empty(address):
        flags |= deals.HAS_CALLBACK
        callback_part = slice(convert(_requestorder.callback, bytes32), 12, 20)
    if sponsor != _requestorder.requester:
        flags |= deals.HAS_SPONSOR
        sponsor_part = slice(convert(sponsor, bytes32), 12, 20)
    if convert(tag, uint256) > deals.MASK_16:
        flags |= deals.HAS_TAG
        tag_part = slice(tag, 0, 32)
    state.page = concat(
        x"00",
        deal_id,
        convert(
            (_apporder.appprice << 176)
            | (dataset_price << 96)
            | (_workerpoolorder.workerpoolprice << 16)
            | ((policy & 255) << 8)
            | flags,
            bytes32,
        ),
        convert(
            (convert(_apporder.app, uint256) << 96)
            | (block.timestamp << 56)
            | ((clock & deals.MASK_40) << 16)
            | _requestorder.category,
            bytes32,
        ),
        convert(
            (convert(app_owner, uint256) << 96)
            | (consumed << 56)
            | (volume << 16)
            | (convert(tag, uint256) & deals.MASK_16),
            bytes32,
        ),
        convert(
            convert(
                (convert(_workerpoolorder.workerpool, uint256) << 56)
                | (max(_requestorder.trust, 1) << 24)
                | (policy >> 128),
                uint216,
            ),
            bytes27,
        ),
        convert(workerpool_owner, bytes20),
        convert(_requestorder.requester, bytes20),
        dataset_part,
        beneficiary_part,
        callback_part,
        sponsor_part,
        tag_part,
        convert(_requestorder.params, Bytes[state.PARAMS_CAP]),
    )
    pages._write(deal_id)

    log SchedulerNotice(workerpool=_workerpoolorder.workerpool, dealid=deal_id)
    log OrdersMatched(
        dealid=deal_id,
        appHash=app_hash,
        datasetHash=dataset_hash,
        workerpoolHash=workerpool_hash,
        requestHash=request_hash,
        volume=volume,
    )
    return deal_id


@external
@nonreentrant
def manageDatasetOrder(_datasetorderoperation: orders.DatasetOrderOperation):
    """
    @notice Presign (0) or close (1) a dataset order, as its owner or with the owner's signature of the operation.
    """
    struct_hash: bytes32 = orders._dataset_struct(_datasetorderoperation.order)
    order_hash: bytes32 = operations._operate(
        (staticcall Registry(DATASET_REGISTRY).resolve(_datasetorderoperation.order.dataset))[0],
        struct_hash,
        orders.DATASET_OPERATION_TYPE,
        _datasetorderoperation.operation,
        _datasetorderoperation.order.volume,
        _datasetorderoperation.sign,
    )
    if _datasetorderoperation.operation == orders.SIGN_OPERATION:
        log SignedDatasetOrder(datasetHash=order_hash)
    else:
        log ClosedDatasetOrder(datasetHash=order_hash)


@external
@nonreentrant
def initialize(_dealid: bytes32, _index: uint256) -> bytes32:
    """
    @notice Open one task of a deal to contributions. Anyone may.
    @return The task's id.
    """
    return tasks._initialize(_dealid, _index)


@external
@nonreentrant
def initializeArray(_dealids: DynArray[bytes32, state.BATCH_CAP], _indexes: DynArray[uint256, state.BATCH_CAP]) -> bool:
    """
    @notice Open several tasks, at most 64.
    """
    assert len(_dealids) == len(_indexes)
    for i: uint256 in range(len(_dealids), bound=state.BATCH_CAP):
        tasks._initialize(_dealids[i], _indexes[i])
    return True


@external
@nonreentrant
def contributeAndFinalize(
    _taskid: bytes32,
    _resultDigest: bytes32,
    _results: Bytes[state.RESULTS_CAP],
    _resultsCallback: Bytes[state.RESULTS_CAP],
    _enclaveChallenge: address,
    _enclaveSign: Bytes[state.SIGN_CAP],
    _authorizationSign: Bytes[state.SIGN_CAP],
):
    """
    @notice Deliver the result of a task that needs no second opinion (trust 1), be paid and end it.
    @param _results Where the result is, at most 4096 bytes.
    @param _resultsCallback Data for the requester's contract, at most 4096 bytes; its keccak256 is then the digest.
    @param _enclaveSign personal_sign by the enclave's key over keccak256(resultHash || resultSeal).
    @param _authorizationSign personal_sign by the workerpool's owner (or the teebroker) over keccak256(worker || task || enclave).
    """
    tasks._contribute_and_finalize(
        _taskid, _resultDigest, _results, _resultsCallback, _enclaveChallenge, _enclaveSign, _authorizationSign
    )


@external
@nonreentrant
def contributeAndFinalizeArray(
    _taskids: DynArray[bytes32, state.BATCH_CAP],
    _resultDigests: DynArray[bytes32, state.BATCH_CAP],
    _results: DynArray[Bytes[BATCH_RESULTS_CAP], state.BATCH_CAP],
    _resultsCallbacks: DynArray[Bytes[BATCH_CALLBACK_CAP], state.BATCH_CAP],
    _enclaveChallenges: DynArray[address, state.BATCH_CAP],
    _enclaveSigns: DynArray[Bytes[BATCH_SIGN_CAP], state.BATCH_CAP],
    _authorizationSigns: DynArray[Bytes[BATCH_SIGN_CAP], state.BATCH_CAP],
) -> bool:
    """
    @notice contributeAndFinalize for several tasks, at most 64, all or none.
    @param _results At most 256 bytes each.
    @param _resultsCallbacks At most 512 bytes each.
    @param _enclaveSigns At most 256 bytes each, as are `_authorizationSigns`.
    """
    count: uint256 = len(_taskids)
    assert len(_resultDigests) == count and len(_results) == count and len(_resultsCallbacks) == count
    assert len(_enclaveChallenges) == count and len(_enclaveSigns) == count and len(_authorizationSigns) == count
    for i: uint256 in range(count, bound=state.BATCH_CAP):
        tasks._contribute_and_finalize(
            _taskids[i],
            _resultDigests[i],
            _results[i],
            _resultsCallbacks[i],
            _enclaveChallenges[i],
            _enclaveSigns[i],
            _authorizationSigns[i],
        )
    return True
