"""The contracts as an outsider meets them: raw calldata in, raw bytes out, no ABI of ours in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import boa
from eth_abi.abi import decode, encode

from cloister.protocol.codec import Address, Bytes32, keccak256
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.orders import (
    AppOrder,
    DatasetOrder,
    Operation,
    Order,
    RequestOrder,
    WorkerpoolOrder,
    operation_digest,
    sign_order,
)
from cloister.protocol.signatures import PrivateKey

APP_ORDER = "(address,uint256,uint256,bytes32,address,address,address,bytes32,bytes)"
DATASET_ORDER = APP_ORDER
WORKERPOOL_ORDER = "(address,uint256,uint256,bytes32,uint256,uint256,address,address,address,bytes32,bytes)"
REQUEST_ORDER = (
    "(address,uint256,address,uint256,address,uint256,address,uint256,bytes32,uint256,uint256,address,address,string,"
    "bytes32,bytes)"
)
FOUR_ORDERS = f"({APP_ORDER},{DATASET_ORDER},{WORKERPOOL_ORDER},{REQUEST_ORDER})"
TASK = (
    "(uint8,bytes32,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,address[],bytes32,bytes,uint256,"
    "bytes)"
)
RESOURCE = "(address,address,uint256)"
DEAL = (
    f"({RESOURCE},{RESOURCE},{RESOURCE},uint256,uint256,bytes32,address,address,address,string,uint256,uint256,uint256,"
    "uint256,uint256,address)"
)
CONTRIBUTION = "(uint8,bytes32,bytes32,address,uint256)"
MANAGE = {
    AppOrder: ("manageAppOrder", APP_ORDER),
    DatasetOrder: ("manageDatasetOrder", DATASET_ORDER),
    WorkerpoolOrder: ("manageWorkerpoolOrder", WORKERPOOL_ORDER),
    RequestOrder: ("manageRequestOrder", REQUEST_ORDER),
}
GAS = 30_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction or call came to. ``reason`` of a revert: its text, ``None`` without one, else the raw hex."""

    done: bool
    output: bytes
    reason: str | None


@dataclass(frozen=True, slots=True)
class World:
    """The hub with its registries and token, a hub before it that remembers scores, and the actors' keys."""

    hub: str
    former_hub: str
    rlc: str
    apps: str
    datasets: str
    workerpools: str
    owner: str
    actors: dict[str, PrivateKey]
    chain_id: int

    @property
    def domain(self) -> Any:
        return hub_domain(self.chain_id, Address(self.hub))

    def send(self, sender: str, to: str, signature: str, *arguments: Any) -> Outcome:
        """A transaction; ``signature`` as in the reference, for instance ``claim(bytes32)``."""
        types = signature.split("(", 1)[1]
        data = selector(signature) + encode(_split(types[:-1]), arguments)
        # What lives for one transaction only must not reach the next; the environment knows no transactions.
        boa.env.evm.vm.state.clear_transient_storage()
        computation = boa.env.execute_code(to_address=to, sender=sender, gas=GAS, data=data)
        if computation.is_error:
            return Outcome(False, computation.output, _reason(computation.output))
        return Outcome(True, computation.output, None)

    def read(self, signature: str, returned: str, *arguments: Any, to: str | None = None) -> Any:
        """A view of the hub (or ``to``) that must not fail."""
        outcome = self.send(self.owner, to or self.hub, signature, *arguments)
        assert outcome.done, f"{signature} failed: {outcome.reason}"
        return decode([returned], outcome.output)[0]

    def sign(self, order: Order, key: PrivateKey | None) -> Order:
        return order if key is None else sign_order(order, key, self.domain)

    def hash(self, order: Order) -> Bytes32:
        return order.hash(self.domain)

    def manage(self, sender: str, order: Order, operation: int, signer: PrivateKey | None) -> Outcome:
        name, order_type = MANAGE[type(order)]
        sign = signer.sign_digest(operation_digest(order, Operation(operation), self.domain)) if signer else b""
        return self.send(sender, self.hub, f"{name}(({order_type},uint8,bytes))", (order.as_tuple(), operation, sign))


@cache
def selector(signature: str) -> bytes:
    return keccak256(signature.encode())[:4]


@cache
def _split(types: str) -> Sequence[str]:
    """Cut ``a,(b,c),d`` at its outer commas."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(types):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(types[start:place])
            start = place + 1
    return tuple([*parts, types[start:]] if types else [])


def _reason(output: bytes) -> str | None:
    if not output:
        return None
    if output[:4] == selector("Error(string)"):
        return str(decode(["string"], output[4:])[0])
    return output.hex()
