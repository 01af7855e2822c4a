"""JSON-RPC toward an Ethereum node: capped, timed, batched; its errors told apart.

A revert is not a failure of the node: it becomes ``TransactionReverted`` with the contract's reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from cloister.chain.abi import decode_revert
from cloister.errors import DecodeError, RemoteError, UnavailableError, quoted
from cloister.protocol.codec import Address, Bytes32, parse_hex, to_hex
from cloister.transport import Http

Block = int | str
"""A block number, or ``"latest"`` (also ``"safe"`` and ``"finalized"`` where the chain has them)."""
BATCH_SIZE: Final = 200
"""Most requests in one HTTP body; longer batches are cut."""
MAX_RESPONSE: Final = 256 * 1024 * 1024
"""A local node's whole state comes in one answer (``anvil_dumpState``)."""
_TAGS: Final = frozenset({"latest", "pending", "safe", "finalized", "earliest"})

T = TypeVar("T")


class RpcError(RemoteError):
    """The node refused a request. ``rpc_code`` is its number, ``data`` the bytes it gave with it."""

    code = "rpc-error"

    def __init__(self, message: str, *, rpc_code: int, data: bytes = b"") -> None:
        super().__init__(message)
        self.rpc_code = rpc_code
        self.data = data


class TransactionReverted(RemoteError):  # the word of the field
    """A contract refused. ``reason`` is its own word (``iExecV5-matchOrders-0x06``), empty when it gave none."""

    code = "reverted"

    def __init__(self, reason: str, *, data: bytes = b"", transaction: Bytes32 | None = None) -> None:
        super().__init__(
            f"the contract refused: {quoted(reason)}" if reason else "the contract refused without a reason"
        )
        self.reason = reason
        self.data = data
        self.transaction = transaction


@dataclass(frozen=True, slots=True)
class Head:
    """A block's name and clock. ``timestamp`` is unix seconds, ``base_fee`` wei per gas."""

    number: int
    hash: Bytes32
    parent: Bytes32
    timestamp: int
    base_fee: int = 0
    gas_limit: int = 0


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """A call that changes nothing: what to ask of whom and how to read the answer."""

    to: Address
    data: bytes
    decode: Callable[[bytes], T]
    sender: Address | None = None


def parse_quantity(value: object) -> int:
    """Read a JSON-RPC quantity (0x hex without fixed length).

    Raises:
        DecodeError: anything else.
    """
    if not isinstance(value, str) or not value.startswith("0x") or not 3 <= len(value) <= 66:
        raise DecodeError(f"the node sent {quoted(value)} where a number belongs")
    try:
        return int(value, 16)
    except ValueError as error:
        raise DecodeError(f"the node sent {quoted(value)} where a number belongs") from error


def block_parameter(block: Block) -> str:
    """Write a block for a request."""
    if isinstance(block, int):
        return hex(block)
    if block not in _TAGS:
        raise DecodeError(f"{quoted(block)} names no block")
    return block


def parse_head(value: object) -> Head:
    """Read a block as ``eth_getBlockByNumber`` gives it.

    Raises:
        DecodeError: a missing or malformed member.
    """
    if not isinstance(value, Mapping):
        raise DecodeError(f"the node sent {quoted(value)} where a block belongs")
    try:
        return Head(
            number=parse_quantity(value["number"]),
            hash=Bytes32(value["hash"]),
            parent=Bytes32(value["parentHash"]),
            timestamp=parse_quantity(value["timestamp"]),
            base_fee=parse_quantity(value.get("baseFeePerGas") or "0x0"),
            gas_limit=parse_quantity(value.get("gasLimit") or "0x0"),
        )
    except KeyError as error:
        raise DecodeError(f"the node sent a block without {error}") from error


def _error_data(error: Mapping[str, object]) -> bytes:
    """Find the revert bytes: nodes put them in ``data`` or deeper."""
    data: object = error.get("data")
    for _ in range(3):
        if isinstance(data, Mapping):
            data = data.get("data") or data.get("result")
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return parse_hex(data, cap=64 * 1024)
        except DecodeError:
            return b""
    return b""


def _parse_error(error: object) -> RemoteError:
    """Turn a JSON-RPC error into ``TransactionReverted`` or ``RpcError``."""
    if not isinstance(error, Mapping):
        return RpcError(f"the node sent the error {quoted(error)}", rpc_code=0)
    message = error.get("message")
    text = message if isinstance(message, str) else "no message"
    number = error.get("code")
    rpc_code = number if isinstance(number, int) else 0
    data = _error_data(error)
    if rpc_code == 3 or "revert" in text.lower():
        return TransactionReverted(decode_revert(data) or _reason_in(text), data=data)
    return RpcError(f"the node refused: {quoted(text)}", rpc_code=rpc_code, data=data)


def _reason_in(text: str) -> str:
    """Take the reason from ``execution reverted: reason``: not every node gives the bytes."""
    _, _, reason = text.partition("reverted:")
    reason = reason.split(", data:", 1)[0].strip()
    return "" if reason.startswith("0x") else reason


class JsonRpc:
    """One node. Safe to use from several threads.

    Every method raises: ``UnavailableError`` (the node does not answer), ``TransactionReverted`` (a contract refused),
    ``RpcError`` (the node refused), ``DecodeError`` (the node's answer is not what the protocol says).
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self.url = url
        self.peer = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self._http = Http(url, timeout=timeout, max_response=MAX_RESPONSE)
        self._ids = itertools.count(1)
        self._chain_id: int | None = None

    def __repr__(self) -> str:
        return f"JsonRpc({self.peer!r})"

    def close(self) -> None:
        """Close the idle connections."""
        self._http.close()

    def call(self, method: str, *params: object, timeout: float | None = None) -> object:
        """Make one request and return its result."""
        identity = next(self._ids)
        request = {"jsonrpc": "2.0", "id": identity, "method": method, "params": list(params)}
        answer = self._post(request, timeout)
        if not isinstance(answer, Mapping) or answer.get("id") != identity:
            raise DecodeError(f"the node answered {method} with something else")
        if answer.get("error") is not None:
            raise _parse_error(answer["error"])
        return answer.get("result")

    def batch(self, requests: Iterable[tuple[str, Sequence[object]]]) -> list[object]:
        """Make many requests in as few round trips as possible and return their results in order.

        Raises the first error among the answers.
        """
        results = self.try_batch(requests)
        for result in results:
            if isinstance(result, RemoteError):
                raise result
        return results

    def try_batch(self, requests: Iterable[tuple[str, Sequence[object]]]) -> list[object]:
        """As ``batch``, but an answer that is an error stands in the list as an exception."""
        pending = list(requests)
        results: list[object] = []
        for start in range(0, len(pending), BATCH_SIZE):
            results.extend(self._batch(pending[start : start + BATCH_SIZE]))
        return results

    def _batch(self, requests: Sequence[tuple[str, Sequence[object]]]) -> list[object]:
        ids = [next(self._ids) for _ in requests]
        body = [
            {"jsonrpc": "2.0", "id": identity, "method": method, "params": list(params)}
            for identity, (method, params) in zip(ids, requests, strict=True)
        ]
        answers = self._post(body, None)
        if not isinstance(answers, list):
            if isinstance(answers, Mapping) and answers.get("error") is not None:
                raise _parse_error(answers["error"])
            raise DecodeError("the node answered a batch with no list")
        by_id = {answer.get("id"): answer for answer in answers if isinstance(answer, Mapping)}
        if set(by_id) != set(ids):
            raise DecodeError(f"the node answered {len(by_id)} of {len(ids)} requests of a batch")
        return [
            _parse_error(answer["error"]) if answer.get("error") is not None else answer.get("result")
            for answer in (by_id[identity] for identity in ids)
        ]

    def _post(self, body: object, timeout: float | None) -> object:
        # Every request of ours may be repeated: a raw transaction is known by its hash.
        return self._http.json("POST", "", body=body, timeout=timeout, repeatable=True)

    @property
    def chain_id(self) -> int:
        """The chain's id, asked once."""
        if self._chain_id is None:
            self._chain_id = parse_quantity(self.call("eth_chainId"))
        return self._chain_id

    def head(self) -> Head:
        """The newest block."""
        return parse_head(self.call("eth_getBlockByNumber", "latest", False))

    def block(self, number: int) -> Head | None:
        """A block by number; None when the chain does not have it."""
        value = self.call("eth_getBlockByNumber", hex(number), False)
        return None if value is None else parse_head(value)

    def block_number(self) -> int:
        """The newest block's number."""
        return parse_quantity(self.call("eth_blockNumber"))

    def balance(self, address: Address, *, block: Block) -> int:
        """An account's balance in wei."""
        return parse_quantity(self.call("eth_getBalance", address, block_parameter(block)))

    def code(self, address: Address, *, block: Block) -> bytes:
        """The code at an address; empty for an account."""
        return parse_hex(self.call("eth_getCode", address, block_parameter(block)))

    def transaction_count(self, address: Address, *, block: Block) -> int:
        """How many transactions an account has sent: its next nonce."""
        return parse_quantity(self.call("eth_getTransactionCount", address, block_parameter(block)))

    def read(self, read: Read[T], *, block: Block) -> T:
        """Make a contract call that changes nothing, at a block."""
        return read.decode(parse_hex(self.call("eth_call", *_call_parameters(read, block))))

    def read_all(self, reads: Iterable[Read[T]], *, block: Block) -> list[T]:
        """Make many such calls at one block in one round trip."""
        pending = list(reads)
        answers = self.batch(("eth_call", _call_parameters(read, block)) for read in pending)
        return [read.decode(parse_hex(answer)) for read, answer in zip(pending, answers, strict=True)]


def _call_parameters(read: Read[T], block: Block) -> tuple[dict[str, str], str]:
    call = {"to": str(read.to), "data": to_hex(read.data)}
    if read.sender is not None:
        call["from"] = str(read.sender)
    return call, block_parameter(block)


def check_chain(rpc: JsonRpc, chain_id: int) -> None:
    """Refuse a node of another chain.

    Raises:
        RemoteError: another chain.
    """
    if rpc.chain_id != chain_id:
        raise RemoteError(f"{rpc.peer} serves chain {rpc.chain_id}, expected {chain_id}", code="wrong-chain")


__all__ = [
    "Block",
    "Head",
    "JsonRpc",
    "Read",
    "RpcError",
    "TransactionReverted",
    "UnavailableError",
    "block_parameter",
    "check_chain",
    "parse_head",
    "parse_quantity",
]
