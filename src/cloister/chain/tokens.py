"""RLC: the token that is staked on the hub (reference 1.4)."""

from __future__ import annotations

from typing import Any, Final

from cloister.chain.abi import function
from cloister.chain.calls import Call
from cloister.chain.rpc import Block, JsonRpc, Read
from cloister.protocol.codec import Address

FUNCTIONS: Final = {
    item.name: item
    for item in (
        function("balanceOf(address)(uint256)"),
        function("allowance(address,address)(uint256)"),
        function("totalSupply()(uint256)"),
        function("transfer(address,uint256)(bool)"),
        function("approve(address,uint256)(bool)"),
        function("transferFrom(address,address,uint256)(bool)"),
        function("approveAndCall(address,uint256,bytes)"),
    )
}
"""Every function of the token that Cloister calls, by name."""


class Rlc:
    """The token. Amounts are nRLC. Reads name a block; writes return a ``Call``."""

    def __init__(self, rpc: JsonRpc, address: Address) -> None:
        self.rpc = rpc
        self.address = Address(address)

    def balance_of(self, owner: Address, *, block: Block) -> int:
        """An account's tokens."""
        return self._read("balanceOf", owner, block=block)

    def allowance(self, owner: Address, spender: Address, *, block: Block) -> int:
        """How many tokens ``spender`` may move for ``owner``."""
        return self._read("allowance", owner, spender, block=block)

    def transfer(self, receiver: Address, amount: int) -> Call:
        """Send tokens."""
        return self._call("transfer", receiver, amount)

    def approve(self, spender: Address, amount: int) -> Call:
        """Let ``spender`` move tokens."""
        return self._call("approve", spender, amount)

    def approve_and_call(self, spender: Address, amount: int, data: bytes = b"") -> Call:
        """Let ``spender`` move tokens and tell it so at once: one transaction stakes RLC on the hub."""
        return self._call("approveAndCall", spender, amount, data)

    def _read(self, name: str, *values: Any, block: Block) -> int:
        item = FUNCTIONS[name]
        return self.rpc.read(
            Read(self.address, item.encode(*values), lambda data: int(item.decode_one(data))), block=block
        )

    def _call(self, name: str, *values: Any) -> Call:
        return Call(self.address, FUNCTIONS[name].encode(*values))
