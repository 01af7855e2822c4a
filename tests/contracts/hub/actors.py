"""Those who sign: keys, the four orders, and the digests of EIP-712 and EIP-191, written out by hand from the specifications."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from dataclasses import replace as changed
from typing import Any, ClassVar

from coincurve import PrivateKey
from eth_abi.abi import encode
from eth_abi.packed import encode_packed
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

ZERO = "0x0000000000000000000000000000000000000000"
ZERO_32 = bytes(32)
TEE = (1).to_bytes(32, "big")
TEE_TDX = (9).to_bytes(32, "big")

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@dataclass(frozen=True, slots=True)
class Actor:
    """A key and its address."""

    secret: bytes
    address: str

    @classmethod
    def named(cls, name: str) -> Actor:
        return cls.with_secret(keccak(name.encode()))

    @classmethod
    def with_secret(cls, secret: bytes) -> Actor:
        public = PrivateKey(secret).public_key.format(compressed=False)[1:]
        return cls(secret, to_checksum_address(keccak(public)[12:]))

    def sign(self, digest: bytes) -> bytes:
        """65 bytes r, s, v with v 27 or 28."""
        raw = PrivateKey(self.secret).sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes([raw[64] + 27])

    def sign_message(self, digest: bytes) -> bytes:
        """personal_sign of 32 bytes."""
        return self.sign(message_digest(digest))


def message_digest(digest: bytes) -> bytes:
    return keccak(b"\x19Ethereum Signed Message:\n32" + digest)


def compact(signature: bytes) -> bytes:
    """EIP-2098 form of a 65-byte signature."""
    s = int.from_bytes(signature[32:64], "big") | ((signature[64] - 27) << 255)
    return signature[:32] + s.to_bytes(32, "big")


def malleated(signature: bytes) -> bytes:
    """The other signature of the same digest by the same key, with s in the upper half."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([27 + 28 - signature[64]])


@dataclass(frozen=True, slots=True)
class Domain:
    chain_id: int
    hub: str

    def separator(self) -> bytes:
        kind = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        return keccak(
            encode(
                ["bytes32", "bytes32", "bytes32", "uint256", "address"],
                [kind, keccak(b"iExecODB"), keccak(b"5.0.0"), self.chain_id, self.hub],
            )
        )

    def digest(self, struct_hash: bytes) -> bytes:
        return keccak(b"\x19\x01" + self.separator() + struct_hash)


class Order:
    """What the four orders have in common."""

    __slots__ = ()
    NAME: ClassVar[str]
    TYPES: ClassVar[tuple[str, ...]]

    def with_(self, **changes: Any) -> Any:
        return changed(self, **changes)  # type: ignore[type-var]

    def as_tuple(self) -> tuple[Any, ...]:
        return astuple(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def type_string(cls) -> str:
        names = [field.name for field in fields(cls)][:-1]  # type: ignore[arg-type]
        return f"{cls.NAME}({','.join(f'{kind} {name}' for kind, name in zip(cls.TYPES, names, strict=True))})"

    def struct_hash(self) -> bytes:
        kinds = ["bytes32", *("bytes32" if kind == "string" else kind for kind in self.TYPES)]
        values = [
            keccak(value.encode()) if kind == "string" else value
            for kind, value in zip(self.TYPES, self.as_tuple()[:-1], strict=True)
        ]
        return keccak(encode(kinds, [keccak(self.type_string().encode()), *values]))

    def hash(self, domain: Domain) -> bytes:
        return domain.digest(self.struct_hash())

    def operation_hash(self, operation: int, domain: Domain) -> bytes:
        kind = f"{self.NAME}Operation({self.NAME} order,uint256 operation){self.type_string()}"
        return domain.digest(
            keccak(encode(["bytes32", "bytes32", "uint256"], [keccak(kind.encode()), self.struct_hash(), operation]))
        )

    def signed(self, actor: Actor, domain: Domain) -> Any:
        return self.with_(sign=actor.sign(self.hash(domain)))

    @classmethod
    def abi(cls) -> str:
        return f"({','.join(cls.TYPES)},bytes)"


@dataclass(frozen=True, slots=True)
class AppOrder(Order):
    NAME = "AppOrder"
    TYPES = ("address", "uint256", "uint256", "bytes32", "address", "address", "address", "bytes32")
    app: str
    appprice: int = 0
    volume: int = 1
    tag: bytes = ZERO_32
    datasetrestrict: str = ZERO
    workerpoolrestrict: str = ZERO
    requesterrestrict: str = ZERO
    salt: bytes = ZERO_32
    sign: bytes = b""


@dataclass(frozen=True, slots=True)
class DatasetOrder(Order):
    NAME = "DatasetOrder"
    TYPES = ("address", "uint256", "uint256", "bytes32", "address", "address", "address", "bytes32")
    dataset: str
    datasetprice: int = 0
    volume: int = 1
    tag: bytes = ZERO_32
    apprestrict: str = ZERO
    workerpoolrestrict: str = ZERO
    requesterrestrict: str = ZERO
    salt: bytes = ZERO_32
    sign: bytes = b""


NO_DATASET = DatasetOrder(dataset=ZERO, volume=0)


@dataclass(frozen=True, slots=True)
class WorkerpoolOrder(Order):
    NAME = "WorkerpoolOrder"
    TYPES = (
        "address",
        "uint256",
        "uint256",
        "bytes32",
        "uint256",
        "uint256",
        "address",
        "address",
        "address",
        "bytes32",
    )
    workerpool: str
    workerpoolprice: int = 0
    volume: int = 1
    tag: bytes = ZERO_32
    category: int = 0
    trust: int = 0
    apprestrict: str = ZERO
    datasetrestrict: str = ZERO
    requesterrestrict: str = ZERO
    salt: bytes = ZERO_32
    sign: bytes = b""


@dataclass(frozen=True, slots=True)
class RequestOrder(Order):
    NAME = "RequestOrder"
    TYPES = (
        "address",
        "uint256",
        "address",
        "uint256",
        "address",
        "uint256",
        "address",
        "uint256",
        "bytes32",
        "uint256",
        "uint256",
        "address",
        "address",
        "string",
        "bytes32",
    )
    app: str
    appmaxprice: int
    dataset: str
    datasetmaxprice: int
    workerpool: str
    workerpoolmaxprice: int
    requester: str
    volume: int = 1
    tag: bytes = ZERO_32
    category: int = 0
    trust: int = 0
    beneficiary: str = ZERO
    callback: str = ZERO
    params: str = ""
    salt: bytes = ZERO_32
    sign: bytes = b""


def deal_id(request_hash: bytes, consumed: int = 0) -> bytes:
    return keccak(request_hash + consumed.to_bytes(32, "big"))


def task_id(deal: bytes, index: int = 0) -> bytes:
    return keccak(deal + index.to_bytes(32, "big"))


def authorization_hash(worker: str, task: bytes, enclave: str = ZERO) -> bytes:
    return keccak(encode_packed(["address", "bytes32", "address"], [worker, task, enclave]))


def result_hash(task: bytes, digest: bytes) -> bytes:
    return keccak(task + digest)


def result_seal(worker: str, task: bytes, digest: bytes) -> bytes:
    return keccak(encode_packed(["address", "bytes32", "bytes32"], [worker, task, digest]))


def enclave_hash(worker: str, task: bytes, digest: bytes) -> bytes:
    """What an enclave signs (as a message) about its result."""
    return keccak(result_hash(task, digest) + result_seal(worker, task, digest))
