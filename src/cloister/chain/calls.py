"""What is asked of the chain to change it, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister.chain.logs import Log, parse_log
from cloister.chain.rpc import parse_quantity
from cloister.errors import DecodeError, quoted
from cloister.protocol.codec import Address, Bytes32


@dataclass(frozen=True, slots=True)
class Call:
    """A transaction to be. ``to`` is None when it creates a contract; ``gas`` None lets the node estimate."""

    to: Address | None
    data: bytes = field(default=b"", repr=False)
    value: int = 0
    gas: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction. ``succeeded`` is false when it reverted."""

    transaction: Bytes32
    block_number: int
    block_hash: Bytes32
    succeeded: bool
    gas_used: int
    logs: tuple[Log, ...]
    contract_address: Address | None = None


def parse_receipt(value: object) -> Receipt:
    """Read a receipt as ``eth_getTransactionReceipt`` gives it.

    Raises:
        DecodeError: a missing or malformed member.
    """
    if not isinstance(value, Mapping):
        raise DecodeError(f"the node sent {quoted(value)} where a receipt belongs")
    try:
        contract = value.get("contractAddress")
        return Receipt(
            transaction=Bytes32(value["transactionHash"]),
            block_number=parse_quantity(value["blockNumber"]),
            block_hash=Bytes32(value["blockHash"]),
            succeeded=parse_quantity(value["status"]) == 1,
            gas_used=parse_quantity(value["gasUsed"]),
            logs=tuple(parse_log(log) for log in value["logs"]),
            contract_address=None if contract is None else Address(contract),
        )
    except (KeyError, TypeError) as error:
        raise DecodeError(f"the node sent a receipt without {error}") from error
