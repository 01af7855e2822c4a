#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize codesize
"""
@title HubOrders
@license Apache-2.0
@notice The hub's part for orders outside a match: presigning, closing, broadcasting, checking, and matches that somebody else pays for.
@dev Runs on the hub's storage by delegate call, see Hub, which keeps `manageDatasetOrder`, the revocation of a grant.
"""

from hub import deals
from hub import groups
from hub import marks
from hub import operations
from hub import orders
from hub import signatures
from hub import state

initializes: state
initializes: marks[state := state]
initializes: operations[marks := marks]

interface Registry:
    def resolve(_entry: address) -> (address, uint256): view


interface Matchmaker:
    def matchOrders(
        _apporder: orders.AppOrder,
        _datasetorder: orders.DatasetOrder,
        _workerpoolorder: orders.WorkerpoolOrder,
        _requestorder: orders.RequestOrder,
    ) -> bytes32: nonpayable


event SignedAppOrder:
    appHash: bytes32


event SignedWorkerpoolOrder:
    workerpoolHash: bytes32


event SignedRequestOrder:
    requestHash: bytes32


event ClosedAppOrder:
    appHash: bytes32


event ClosedWorkerpoolOrder:
    workerpoolHash: bytes32


event ClosedRequestOrder:
    requestHash: bytes32


event BroadcastAppOrder:
    apporder: orders.AppOrder


event BroadcastDatasetOrder:
    datasetorder: orders.DatasetOrder


event BroadcastWorkerpoolOrder:
    workerpoolorder: orders.WorkerpoolOrder


event BroadcastRequestOrder:
    requestorder: orders.RequestOrder


event DealSponsored:
    dealId: bytes32
    sponsor: address


ANSWER_CAP: constant(uint256) = 40960
FRAMEWORKS: constant(bytes32) = 0x000000000000000000000000000000000000000000000000000000000000000e
TEE: constant(bytes32) = 0x0000000000000000000000000000000000000000000000000000000000000001

APP_REGISTRY: immutable(address)
DATASET_REGISTRY: immutable(address)
WORKERPOOL_REGISTRY: immutable(address)
NEXT_PART: immutable(address)


@deploy
def __init__(app_registry: address, dataset_registry: address, workerpool_registry: address, next_part: address):
    """
    @notice Deploy this part; it must name the same registries as the hub.
    @param next_part The deployed HubAccounts.
    """
    APP_REGISTRY = app_registry
    DATASET_REGISTRY = dataset_registry
    WORKERPOOL_REGISTRY = workerpool_registry
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
def sponsorMatchOrders(
    _apporder: orders.AppOrder,
    _datasetorder: orders.DatasetOrder,
    _workerpoolorder: orders.WorkerpoolOrder,
    _requestorder: orders.RequestOrder,
) -> bytes32:
    """
    @notice Match four orders and pay for the deal in the requester's place.
    @return The deal's id.
    """
    # The match, which comes next, takes the sponsor from here and clears it; if it fails nothing of this remains.
    state.patron = msg.sender
    deal_id: bytes32 = extcall Matchmaker(self).matchOrders(_apporder, _datasetorder, _workerpoolorder, _requestorder)
    log DealSponsored(dealId=deal_id, sponsor=msg.sender)
    return deal_id


@external
@nonreentrant
def manageAppOrder(_apporderoperation: orders.AppOrderOperation):
    """
    @notice Presign (0) or close (1) an app order, as its owner or with the owner's signature of the operation.
    """
    struct_hash: bytes32 = orders._app_struct(_apporderoperation.order)
    order_hash: bytes32 = operations._operate(
        self._owner_of(APP_REGISTRY, _apporderoperation.order.app),
        struct_hash,
        orders.APP_OPERATION_TYPE,
        _apporderoperation.operation,
        _apporderoperation.order.volume,
        _apporderoperation.sign,
    )
    if _apporderoperation.operation == orders.SIGN_OPERATION:
        log SignedAppOrder(appHash=order_hash)
    else:
        log ClosedAppOrder(appHash=order_hash)


@external
@nonreentrant
def manageWorkerpoolOrder(_workerpoolorderoperation: orders.WorkerpoolOrderOperation):
    """
    @notice Presign (0) or close (1) a workerpool order, as its owner or with the owner's signature of the operation.
    """
    struct_hash: bytes32 = orders._workerpool_struct(_workerpoolorderoperation.order)
    order_hash: bytes32 = operations._operate(
        self._owner_of(WORKERPOOL_REGISTRY, _workerpoolorderoperation.order.workerpool),
        struct_hash,
        orders.WORKERPOOL_OPERATION_TYPE,
        _workerpoolorderoperation.operation,
        _workerpoolorderoperation.order.volume,
        _workerpoolorderoperation.sign,
    )
    if _workerpoolorderoperation.operation == orders.SIGN_OPERATION:
        log SignedWorkerpoolOrder(workerpoolHash=order_hash)
    else:
        log ClosedWorkerpoolOrder(workerpoolHash=order_hash)


@external
@nonreentrant
def manageRequestOrder(_requestorderoperation: orders.RequestOrderOperation):
    """
    @notice Presign (0) or close (1) a request order, as its requester or with the requester's signature of the operation.
    """
    struct_hash: bytes32 = orders._request_struct(_requestorderoperation.order)
    order_hash: bytes32 = operations._operate(
        _requestorderoperation.order.requester,
        struct_hash,
        orders.REQUEST_OPERATION_TYPE,
        _requestorderoperation.operation,
        _requestorderoperation.order.volume,
        _requestorderoperation.sign,
    )
    if _requestorderoperation.operation == orders.SIGN_OPERATION:
        log SignedRequestOrder(requestHash=order_hash)
    else:
        log ClosedRequestOrder(requestHash=order_hash)


@internal
@view
def _owner_of(registry: address, entry: address) -> address:
    """
    @dev Owner of a registered resource, zero if it is not registered.
    """
    return (staticcall Registry(registry).resolve(entry))[0]


@external
def broadcastAppOrder(_apporder: orders.AppOrder):
    """
    @notice Put an app order on the chain's log. Nothing is checked.
    """
    log BroadcastAppOrder(apporder=_apporder)


@external
def broadcastDatasetOrder(_datasetorder: orders.DatasetOrder):
    """
    @notice Put a dataset order on the chain's log. Nothing is checked.
    """
    log BroadcastDatasetOrder(datasetorder=_datasetorder)


@external
def broadcastWorkerpoolOrder(_workerpoolorder: orders.WorkerpoolOrder):
    """
    @notice Put a workerpool order on the chain's log. Nothing is checked.
    """
    log BroadcastWorkerpoolOrder(workerpoolorder=_workerpoolorder)


@external
def broadcastRequestOrder(_requestorder: orders.RequestOrder):
    """
    @notice Put a request order on the chain's log. Nothing is checked.
    """
    log BroadcastRequestOrder(requestorder=_requestorder)


@external
@view
def verifySignature(_identity: address, _hash: bytes32, _signature: Bytes[state.SIGN_CAP]) -> bool:
    """
    @notice Whether an account signed a hash: by ERC-1271 if it has code, else by ECDSA (65 bytes, or 64 as in EIP-2098).
    """
    return signatures._verify(_identity, _hash, _signature)


@external
@view
def verifyPresignature(_identity: address, _hash: bytes32) -> bool:
    """
    @notice Whether an account presigned the order of this hash.
    """
    return _identity != empty(address) and marks._presigner(_hash) == _identity


@external
@view
def verifyPresignatureOrSignature(_identity: address, _hash: bytes32, _signature: Bytes[state.SIGN_CAP]) -> bool:
    """
    @notice Whether an account presigned or signed the order of this hash.
    """
    return marks._is_authentic(_identity, _hash, _signature, state.marks[_hash])


@external
@view
def viewPresigned(_id: bytes32) -> address:
    """
    @notice Who presigned the order of this hash, zero for nobody.
    """
    return marks._presigner(_id)


@external
@view
def viewConsumed(_id: bytes32) -> uint256:
    """
    @notice How much of an order's volume was used; all of it once it was closed.
    """
    return marks._consumed(_id)


@external
@view
def isClosed(_id: bytes32) -> bool:
    """
    @notice Whether an order was closed (revoked) by its owner. An order that was only used up is not.
    """
    return state.marks[_id] >= marks.CLOSED


@external
@view
def computeDealVolume(
    _apporder: orders.AppOrder,
    _datasetorder: orders.DatasetOrder,
    _workerpoolorder: orders.WorkerpoolOrder,
    _requestorder: orders.RequestOrder,
) -> uint256:
    """
    @notice Number of tasks a match of these orders would have, if everything else were right.
    """
    separator: bytes32 = orders._domain_separator()
    volume: uint256 = self._left(
        separator, orders._request_struct(_requestorder), min(_requestorder.volume, deals.VOLUME_CAP)
    )
    volume = min(volume, self._left(separator, orders._app_struct(_apporder), _apporder.volume))
    volume = min(volume, self._left(separator, orders._workerpool_struct(_workerpoolorder), _workerpoolorder.volume))
    if _datasetorder.dataset != empty(address):
        volume = min(volume, self._left(separator, orders._dataset_struct(_datasetorder), _datasetorder.volume))
    return volume


@internal
@view
def _left(separator: bytes32, struct_hash: bytes32, volume: uint256) -> uint256:
    consumed: uint256 = marks._consumed(orders._digest(separator, struct_hash))
    if consumed >= volume:
        return 0
    return volume - consumed


@external
@view
def assertDatasetDealCompatibility(_datasetOrder: orders.DatasetOrder, _dealid: bytes32):
    """
    @notice Revert with IncompatibleDatasetOrder(reason) unless this dataset order could serve that deal, which has no
            dataset of its own. Nothing is consumed.
    """
    order_hash: bytes32 = orders._digest(orders._domain_separator(), orders._dataset_struct(_datasetOrder))
    mark: uint256 = state.marks[order_hash]
    if marks._left(mark, _datasetOrder.volume) == 0:
        self._refuse("Dataset order is revoked or fully consumed")
    owner: address = self._owner_of(DATASET_REGISTRY, _datasetOrder.dataset)
    if owner == empty(address) or not marks._is_authentic(owner, order_hash, _datasetOrder.sign, mark):
        self._refuse("Invalid dataset order signature")
    deal: deals.Deal = deals._load_deal(_dealid)
    if deal.app.pointer == empty(address):
        self._refuse("Deal not found")
    if deal.dataset.pointer != empty(address):
        self._refuse("Deal already has a dataset")
    if not groups._admits(_datasetOrder.apprestrict, deal.app.pointer):
        self._refuse("App restriction not satisfied")
    if not groups._admits(_datasetOrder.workerpoolrestrict, deal.workerpool.pointer):
        self._refuse("Workerpool restriction not satisfied")
    if not groups._admits(_datasetOrder.requesterrestrict, deal.requester):
        self._refuse("Requester restriction not satisfied")
    # The deal's tag says what its workerpool offers at the least, and its app bears the TEE bit if it has it.
    if (_datasetOrder.tag & ~FRAMEWORKS) & ~deal.tag != empty(bytes32):
        self._refuse("Tag compatibility not satisfied")


@internal
@pure
def _refuse(reason: String[64]):
    raw_revert(abi_encode(reason, method_id=method_id("IncompatibleDatasetOrder(string)")))
