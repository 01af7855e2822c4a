"""The four orders: signed offers and requests (reference 1.2, 1.5).

Field names are the wire's names. Constructors validate and normalise, so an invalid order cannot exist: addresses
become ``Address``, words ``Bytes32``, tags ``Tag``; integers are uint256; texts and signatures have caps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import ClassVar, Final, Self, TypeVar

from cloister.errors import DecodeError, InputError, TooLarge, VerificationError, quoted
from cloister.protocol.codec import (
    SAFE_INTEGER_MAX,
    ZERO_ADDRESS,
    ZERO_BYTES32,
    Address,
    Bytes32,
    check_keys,
    check_uint,
    parse_hex,
    parse_uint,
    to_hex,
)
from cloister.protocol.eip712 import Domain, Types, envelope_digest, struct_hash
from cloister.protocol.signatures import PrivateKey, recover_address
from cloister.protocol.tags import NO_TAG, Tag

PARAMS_CAP: Final = 16 * 1024
"""Longest ``params`` in bytes of UTF-8; the hub's own cap."""
SIGN_CAP: Final = 1024
"""Longest ``sign`` in bytes, room for a contract's signature (ERC-1271); the hub's own cap."""


class OrderKind(StrEnum):
    """The kind of an order, in the words of the market and its paths."""

    APP = "apporder"
    DATASET = "datasetorder"
    WORKERPOOL = "workerpoolorder"
    REQUEST = "requestorder"


class Operation(IntEnum):
    """What ``manageXOrder`` does with an order."""

    SIGN = 0
    CLOSE = 1


def _normalise(order: object) -> None:
    """Check every field of an order by its type and write back the normal form."""
    for field in dataclasses.fields(order):  # type: ignore[arg-type]  # only called on the dataclasses below
        value: object = getattr(order, field.name)
        normal: object
        match field.type:
            case "Address":
                normal = _text(Address, field.name, value)
            case "Bytes32":
                normal = _text(Bytes32, field.name, value)
            case "Tag":
                normal = _text(Tag, field.name, value)
            case "int":
                normal = check_uint(field.name, value)
            case "str":
                normal = _check_params(field.name, value)
            case _:
                normal = _check_sign(field.name, value)
        object.__setattr__(order, field.name, normal)


def _text(kind: type[Address] | type[Bytes32], name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name}: expected 0x hex, got {quoted(value)}")
    if type(value) is kind:
        return value
    try:
        return kind(value)
    except DecodeError as error:
        raise type(error)(f"{name}: {error.message}", hint=error.hint, code=error.code) from error


def _check_params(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name}: expected a string, got {quoted(value)}")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(f"{name}: {quoted(value)} is not text") from error
    if size > PARAMS_CAP:
        raise TooLarge(f"{name}: {size} bytes are more than the cap of {PARAMS_CAP}")
    return value


def _check_sign(name: str, value: object) -> bytes:
    if not isinstance(value, bytes):
        raise InputError(f"{name}: expected bytes, got {quoted(value)}")
    if len(value) > SIGN_CAP:
        raise TooLarge(f"{name}: {len(value)} bytes are more than the cap of {SIGN_CAP}")
    return value


@dataclass(frozen=True, slots=True)
class _Order:
    """What the four orders share. Not an order itself."""

    KIND: ClassVar[OrderKind]
    TYPE: ClassVar[str]
    TYPES: ClassVar[Types]

    def __post_init__(self) -> None:
        _normalise(self)

    @property
    def kind(self) -> OrderKind:
        """Which of the four this is."""
        return self.KIND

    def message(self) -> dict[str, object]:
        """The signed members as plain values, ``sign`` left out."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "sign"}

    def struct_hash(self) -> bytes:
        """Return EIP-712's ``hashStruct`` of the order."""
        return struct_hash(self.TYPES, self.TYPE, self.message())

    def hash(self, domain: Domain) -> Bytes32:
        """Return the order's hash on that hub: what is signed and what the hub counts by."""
        return Bytes32.from_raw(envelope_digest(domain, self.struct_hash()))

    def as_tuple(self) -> tuple[object, ...]:
        """Return the order as its ABI tuple: addresses as hex, words and signature as bytes."""
        return tuple(
            value.raw if isinstance(value, Bytes32) else value
            for value in (getattr(self, field.name) for field in dataclasses.fields(self))
        )

    def to_json(self, *, numbers: bool = False) -> dict[str, str | int]:
        """Return the order as iExec's clients send it: integers are decimal strings, or JSON numbers with ``numbers``.

        Raises:
            InputError: ``numbers`` and an integer over 2^53-1, which JSON readers would round.
        """
        result: dict[str, str | int] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bytes):
                result[field.name] = to_hex(value)
            elif isinstance(value, int):
                if numbers and value > SAFE_INTEGER_MAX:
                    raise InputError(f"{field.name}: {value} is more than 2^53-1")
                result[field.name] = value if numbers else str(value)
            else:
                result[field.name] = str(value)
        return result

    def signed(self, sign: bytes) -> Self:
        """Return the same order with this signature."""
        return dataclasses.replace(self, sign=sign)  # type: ignore[call-arg]  # every order has the field

    @property
    def resource(self) -> Address:
        """The app, dataset or workerpool on offer; for a request its requester. Its owner signs."""
        return Address(getattr(self, next(iter(dataclasses.fields(self))).name))


def _members(*members: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for kind, name in (member.split(" ") for member in members))


@dataclass(frozen=True, slots=True)
class AppOrder(_Order):
    """An app's owner offers its use."""

    app: Address
    appprice: int = 0
    volume: int = 1
    tag: Tag = NO_TAG
    datasetrestrict: Address = ZERO_ADDRESS
    workerpoolrestrict: Address = ZERO_ADDRESS
    requesterrestrict: Address = ZERO_ADDRESS
    salt: Bytes32 = ZERO_BYTES32
    sign: bytes = b""

    KIND: ClassVar[OrderKind] = OrderKind.APP
    TYPE: ClassVar[str] = "AppOrder"
    TYPES: ClassVar[Types] = {
        "AppOrder": _members(
            "address app",
            "uint256 appprice",
            "uint256 volume",
            "bytes32 tag",
            "address datasetrestrict",
            "address workerpoolrestrict",
            "address requesterrestrict",
            "bytes32 salt",
        )
    }


@dataclass(frozen=True, slots=True)
class DatasetOrder(_Order):
    """A data owner grants access to protected data."""

    dataset: Address
    datasetprice: int = 0
    volume: int = 1
    tag: Tag = NO_TAG
    apprestrict: Address = ZERO_ADDRESS
    workerpoolrestrict: Address = ZERO_ADDRESS
    requesterrestrict: Address = ZERO_ADDRESS
    salt: Bytes32 = ZERO_BYTES32
    sign: bytes = b""

    KIND: ClassVar[OrderKind] = OrderKind.DATASET
    TYPE: ClassVar[str] = "DatasetOrder"
    TYPES: ClassVar[Types] = {
        "DatasetOrder": _members(
            "address dataset",
            "uint256 datasetprice",
            "uint256 volume",
            "bytes32 tag",
            "address apprestrict",
            "address workerpoolrestrict",
            "address requesterrestrict",
            "bytes32 salt",
        )
    }


@dataclass(frozen=True, slots=True)
class WorkerpoolOrder(_Order):
    """A workerpool offers computing."""

    workerpool: Address
    workerpoolprice: int = 0
    volume: int = 1
    tag: Tag = NO_TAG
    category: int = 0
    trust: int = 0
    apprestrict: Address = ZERO_ADDRESS
    datasetrestrict: Address = ZERO_ADDRESS
    requesterrestrict: Address = ZERO_ADDRESS
    salt: Bytes32 = ZERO_BYTES32
    sign: bytes = b""

    KIND: ClassVar[OrderKind] = OrderKind.WORKERPOOL
    TYPE: ClassVar[str] = "WorkerpoolOrder"
    TYPES: ClassVar[Types] = {
        "WorkerpoolOrder": _members(
            "address workerpool",
            "uint256 workerpoolprice",
            "uint256 volume",
            "bytes32 tag",
            "uint256 category",
            "uint256 trust",
            "address apprestrict",
            "address datasetrestrict",
            "address requesterrestrict",
            "bytes32 salt",
        )
    }


@dataclass(frozen=True, slots=True)
class RequestOrder(_Order):
    """A requester asks for an execution and says what it may cost."""

    app: Address
    appmaxprice: int = 0
    dataset: Address = ZERO_ADDRESS
    datasetmaxprice: int = 0
    workerpool: Address = ZERO_ADDRESS
    workerpoolmaxprice: int = 0
    requester: Address = ZERO_ADDRESS
    volume: int = 1
    tag: Tag = NO_TAG
    category: int = 0
    trust: int = 0
    beneficiary: Address = ZERO_ADDRESS
    callback: Address = ZERO_ADDRESS
    params: str = ""
    salt: Bytes32 = ZERO_BYTES32
    sign: bytes = b""

    KIND: ClassVar[OrderKind] = OrderKind.REQUEST
    TYPE: ClassVar[str] = "RequestOrder"
    TYPES: ClassVar[Types] = {
        "RequestOrder": _members(
            "address app",
            "uint256 appmaxprice",
            "address dataset",
            "uint256 datasetmaxprice",
            "address workerpool",
            "uint256 workerpoolmaxprice",
            "address requester",
            "uint256 volume",
            "bytes32 tag",
            "uint256 category",
            "uint256 trust",
            "address beneficiary",
            "address callback",
            "string params",
            "bytes32 salt",
        )
    }

    @property
    def resource(self) -> Address:
        """The requester: a request is signed by who pays."""
        return self.requester


Order = AppOrder | DatasetOrder | WorkerpoolOrder | RequestOrder
ORDER_TYPES: Final[Mapping[OrderKind, type[Order]]] = {
    OrderKind.APP: AppOrder,
    OrderKind.DATASET: DatasetOrder,
    OrderKind.WORKERPOOL: WorkerpoolOrder,
    OrderKind.REQUEST: RequestOrder,
}

NO_DATASET_ORDER: Final = DatasetOrder(dataset=ZERO_ADDRESS, volume=0)
"""Stands in ``matchOrders`` when the request names no dataset."""


def parse_order(kind: OrderKind | str, mapping: object) -> Order:
    """Read an order as iExec's clients send it: numbers or decimal strings, addresses in any case, ``sign`` optional.

    Raises:
        DecodeError: a missing, unknown or unreadable member (named).
        TooLarge: params or signature over their caps.
        InputError: an unknown kind, or params that are no text.
    """
    try:
        order_type = ORDER_TYPES[OrderKind(kind)]
    except ValueError as error:
        raise InputError(f"unknown kind of order {quoted(kind)}", hint=", ".join(OrderKind)) from error
    fields = dataclasses.fields(order_type)
    names = [field.name for field in fields]
    given = check_keys(str(kind), mapping, required=[name for name in names if name != "sign"], optional=["sign"])
    values: dict[str, object] = {}
    for field in fields:
        if field.name not in given:
            continue
        value = given[field.name]
        if field.type == "int":
            values[field.name] = parse_uint(field.name, value)
        elif field.type == "bytes":
            values[field.name] = parse_hex(value, cap=SIGN_CAP)
        else:
            values[field.name] = value
    return order_type(**values)  # type: ignore[arg-type]  # the constructors check every value


_SomeOrder = TypeVar("_SomeOrder", AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder)


def sign_order(order: _SomeOrder, key: PrivateKey, domain: Domain) -> _SomeOrder:
    """Return the order signed by ``key`` for the hub of ``domain``."""
    return order.signed(key.sign_digest(order.hash(domain).raw))


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """Proof that ``signer`` signed ``order`` for one hub. Built only by ``verify_order_signature``."""

    order: Order
    order_hash: Bytes32
    signer: Address


def verify_order_signature(order: Order, owner: Address, domain: Domain) -> VerifiedOrder:
    """Prove that ``owner`` (an account without code) signed the order.

    Owners that are contracts (ERC-1271) and presigned orders are the chain's to judge: ask ``Hub.verify_signature``.

    Raises:
        VerificationError: unsigned, malformed, malleable, or signed by somebody else.
    """
    order_hash = order.hash(domain)
    if not order.sign:
        raise VerificationError(f"{order.kind} {order_hash} is not signed", code="bad-signature")
    signer = recover_address(order_hash.raw, order.sign)
    if signer != owner:
        raise VerificationError(f"{order.kind} {order_hash} is signed by {signer}, not by {owner}", code="wrong-signer")
    return VerifiedOrder(order, order_hash, signer)


def operation_digest(order: Order, operation: Operation, domain: Domain) -> bytes:
    """Return the 32 bytes that an owner signs to let anybody presign or close the order (``*OrderOperation``)."""
    name = f"{order.TYPE}Operation"
    types = {**order.TYPES, name: (("order", order.TYPE), ("operation", "uint256"))}
    message: dict[str, object] = {"order": order.message(), "operation": int(operation)}
    return envelope_digest(domain, struct_hash(types, name, message))
