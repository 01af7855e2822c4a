"""Transactions with a fee market (EIP-1559, type 2): built, signed and named by their hash."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import InputError
from cloister.protocol.codec import Address, Bytes32, check_uint, keccak256
from cloister.protocol.rlp import build_rlp
from cloister.protocol.signatures import PrivateKey

TRANSACTION_TYPE = b"\x02"


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A transaction as nodes take it, and its hash."""

    raw: bytes
    hash: Bytes32


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that is not signed yet. ``to`` is None when it creates a contract. Fees are wei per unit of gas."""

    chain_id: int
    nonce: int
    max_priority_fee: int
    max_fee: int
    gas: int
    to: Address | None
    value: int
    data: bytes

    def __post_init__(self) -> None:
        for name in ("chain_id", "max_priority_fee", "max_fee", "value"):
            check_uint(name, getattr(self, name))
        for name in ("nonce", "gas"):
            check_uint(name, getattr(self, name), maximum=2**64 - 1)
        if self.max_priority_fee > self.max_fee:
            raise InputError(f"priority fee {self.max_priority_fee} is more than the whole fee {self.max_fee}")

    def _fields(self) -> list[object]:
        to = b"" if self.to is None else self.to.raw
        fees = [self.max_priority_fee, self.max_fee, self.gas]
        return [self.chain_id, self.nonce, *fees, to, self.value, self.data, []]

    def sign(self, key: PrivateKey) -> SignedTransaction:
        """Return the transaction signed by ``key``. Signing again gives the same bytes."""
        fields = self._fields()
        signature = key.sign_digest(keccak256(TRANSACTION_TYPE + build_rlp(fields)))
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        raw = TRANSACTION_TYPE + build_rlp([*fields, signature[64] - 27, r, s])
        return SignedTransaction(raw, Bytes32.from_raw(keccak256(raw)))
