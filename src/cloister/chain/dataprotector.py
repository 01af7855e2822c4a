"""The DataProtector contract: makes a dataset and says its schema in one transaction (reference 1.11)."""

from __future__ import annotations

from typing import Final

from cloister.chain.abi import function
from cloister.chain.calls import Call, Receipt
from cloister.chain.logs import DatasetSchema, decode_log
from cloister.chain.rpc import JsonRpc
from cloister.errors import DecodeError
from cloister.protocol.codec import Address, Bytes32

CREATE: Final = function("createDatasetWithSchema(address,string,string,bytes,bytes32)(address)")


class DataProtectorContract:
    """The contract on one chain. Writes return a ``Call``."""

    def __init__(self, rpc: JsonRpc, address: Address) -> None:
        self.rpc = rpc
        self.address = Address(address)

    def create_dataset_with_schema(
        self, owner: Address, name: str, schema: str, multiaddr: bytes, checksum: Bytes32
    ) -> Call:
        """Make a dataset for ``owner``; ``schema`` is compact JSON."""
        return Call(self.address, CREATE.encode(owner, name, schema, multiaddr, checksum.raw))

    def created_dataset(self, receipt: Receipt) -> Address:
        """The dataset that a transaction made.

        Raises:
            DecodeError: it made none, or several.
        """
        made = [
            event.dataset
            for log in receipt.logs
            if log.address == self.address
            if isinstance(event := decode_log(log), DatasetSchema)
        ]
        if len(made) != 1:
            raise DecodeError(f"transaction {receipt.transaction} made {len(made)} datasets, expected one")
        return made[0]
