#pragma version 0.4.3
"""
@title Orders
@license Apache-2.0
@notice The four orders as iExec's clients sign them, and their EIP-712 hashes.
@dev An order's hash is the typed data digest itself: keccak256(0x1901 || domain separator || struct hash).
"""

from . import state


struct AppOrder:
    app: address
    appprice: uint256
    volume: uint256
    tag: bytes32
    datasetrestrict: address
    workerpoolrestrict: address
    requesterrestrict: address
    salt: bytes32
    sign: Bytes[state.SIGN_CAP]


struct DatasetOrder:
    dataset: address
    datasetprice: uint256
    volume: uint256
    tag: bytes32
    apprestrict: address
    workerpoolrestrict: address
    requesterrestrict: address
    salt: bytes32
    sign: Bytes[state.SIGN_CAP]


struct WorkerpoolOrder:
    workerpool: address
    workerpoolprice: uint256
    volume: uint256
    tag: bytes32
    category: uint256
    trust: uint256
    apprestrict: address
    datasetrestrict: address
    requesterrestrict: address
    salt: bytes32
    sign: Bytes[state.SIGN_CAP]


struct RequestOrder:
    app: address
    appmaxprice: uint256
    dataset: address
    datasetmaxprice: uint256
    workerpool: address
    workerpoolmaxprice: uint256
    requester: address
    volume: uint256
    tag: bytes32
    category: uint256
    trust: uint256
    beneficiary: address
    callback: address
    params: String[state.PARAMS_CAP]
    salt: bytes32
    sign: Bytes[state.SIGN_CAP]


struct AppOrderOperation:
    order: AppOrder
    operation: uint8
    sign: Bytes[state.SIGN_CAP]


struct DatasetOrderOperation:
    order: DatasetOrder
    operation: uint8
    sign: Bytes[state.SIGN_CAP]


struct WorkerpoolOrderOperation:
    order: WorkerpoolOrder
    operation: uint8
    sign: Bytes[state.SIGN_CAP]


struct RequestOrderOperation:
    order: RequestOrder
    operation: uint8
    sign: Bytes[state.SIGN_CAP]


NAME: constant(String[8]) = "iExecODB"
VERSION: constant(String[5]) = "5.0.0"

SIGN_OPERATION: constant(uint8) = 0
CLOSE_OPERATION: constant(uint8) = 1

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
APP_TYPE: constant(bytes32) = 0x60815a0eeec47dddf1615fe53b31d016c31444e01b9d796db365443a6445d008
APP_OPERATION_TYPE: constant(bytes32) = 0x0638bb0702457e2b4b01be8a202579b8bf97e587fb4f2cc4d4aad01f21a06ee0
DATASET_TYPE: constant(bytes32) = 0x6cfc932a5a3d22c4359295b9f433edff52b60703fa47690a04a83e40933dd47c
DATASET_OPERATION_TYPE: constant(bytes32) = 0x075eb6f7578ff4292c241bd2484cd5c1d5e6ecc2ddd3317e1d8176b5a45865ec
WORKERPOOL_TYPE: constant(bytes32) = 0xaa3429fb281b34691803133d3d978a75bb77c617ed6bc9aa162b9b30920022bb
WORKERPOOL_OPERATION_TYPE: constant(bytes32) = 0x322d980b7d7a6a1f7c39ff0c5445da6ae1d8e0393ff0dd468c8be3e2c8644388
REQUEST_TYPE: constant(bytes32) = 0xf24e853034a3a450aba845a82914fbb564ad85accca6cf62be112a154520fae0
REQUEST_OPERATION_TYPE: constant(bytes32) = 0x0ded7b52c2d77595a40d242eca751df172b18e686326dbbed3f4748828af77c7


@internal
@view
def _domain_separator() -> bytes32:
    """
    @dev Computed each time (about 300 gas): nothing to store, and right at once on a fork with another chain id.
    """
    return keccak256(abi_encode(DOMAIN_TYPE, keccak256(NAME), keccak256(VERSION), chain.id, self))


@internal
@pure
def _digest(separator: bytes32, struct_hash: bytes32) -> bytes32:
    return keccak256(concat(x"1901", separator, struct_hash))


@internal
@pure
def _app_struct(order: AppOrder) -> bytes32:
    return keccak256(
        abi_encode(
            APP_TYPE,
            order.app,
            order.appprice,
            order.volume,
            order.tag,
            order.datasetrestrict,
            order.workerpoolrestrict,
            order.requesterrestrict,
            order.salt,
        )
    )


@internal
@pure
def _dataset_struct(order: DatasetOrder) -> bytes32:
    return keccak256(
        abi_encode(
            DATASET_TYPE,
            order.dataset,
            order.datasetprice,
            order.volume,
            order.tag,
            order.apprestrict,
            order.workerpoolrestrict,
            order.requesterrestrict,
            order.salt,
        )
    )


@internal
@pure
def _workerpool_struct(order: WorkerpoolOrder) -> bytes32:
    return keccak256(
        abi_encode(
            WORKERPOOL_TYPE,
            order.workerpool,
            order.workerpoolprice,
            order.volume,
            order.tag,
            order.category,
            order.trust,
            order.apprestrict,
            order.datasetrestrict,
            order.requesterrestrict,
            order.salt,
        )
    )


@internal
@pure
def _request_struct(order: RequestOrder) -> bytes32:
    return keccak256(
        abi_encode(
            REQUEST_TYPE,
            order.app,
            order.appmaxprice,
            order.dataset,
            order.datasetmaxprice,
            order.workerpool,
            order.workerpoolmaxprice,
            order.requester,
            order.volume,
            order.tag,
            order.category,
            order.trust,
            order.beneficiary,
            order.callback,
            keccak256(order.params),
            order.salt,
        )
    )
