"""The registries of apps, datasets and workerpools, and their entries (reference 1.3).

A registry is an enumerable ERC-721 whose token ids are the entries' addresses as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cloister.chain.abi import Function, function
from cloister.chain.calls import Call, Receipt
from cloister.chain.logs import EntryTransfer, decode_log
from cloister.chain.rpc import Block, JsonRpc, Read, TransactionReverted
from cloister.errors import DecodeError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32

FUNCTIONS: Final = {
    item.name: item
    for item in (
        function("isRegistered(address)(bool)"),
        function("balanceOf(address)(uint256)"),
        function("ownerOf(uint256)(address)"),
        function("tokenOfOwnerByIndex(address,uint256)(uint256)"),
        function("tokenByIndex(uint256)(uint256)"),
        function("totalSupply()(uint256)"),
        function("getApproved(uint256)(address)"),
        function("approve(address,uint256)"),
        function("safeTransferFrom(address,address,uint256)"),
        function("createApp(address,string,string,bytes,bytes32,bytes)(address)"),
        function("predictApp(address,string,string,bytes,bytes32,bytes)(address)"),
        function("createDataset(address,string,bytes,bytes32)(address)"),
        function("predictDataset(address,string,bytes,bytes32)(address)"),
        function("createWorkerpool(address,string)(address)"),
        function("predictWorkerpool(address,string)(address)"),
    )
}
"""Every function of a registry that Cloister calls, by name."""
ENTRY_FUNCTIONS: Final = {
    item.name: item
    for item in (
        function("owner()(address)"),
        function("registry()(address)"),
        function("m_appName()(string)"),
        function("m_appType()(string)"),
        function("m_appMultiaddr()(bytes)"),
        function("m_appChecksum()(bytes32)"),
        function("m_appMREnclave()(bytes)"),
        function("m_datasetName()(string)"),
        function("m_datasetMultiaddr()(bytes)"),
        function("m_datasetChecksum()(bytes32)"),
        function("m_workerpoolDescription()(string)"),
        function("m_workerStakeRatioPolicy()(uint256)"),
        function("m_schedulerRewardRatioPolicy()(uint256)"),
        function("changePolicy(uint256,uint256)"),
    )
}
"""Every function of an entry that Cloister calls, by name."""


@dataclass(frozen=True, slots=True)
class AppEntry:
    """An app on chain. ``multiaddr`` and ``mrenclave`` are the bytes as stored."""

    address: Address
    owner: Address
    registry: Address
    name: str
    type: str
    multiaddr: bytes
    checksum: Bytes32
    mrenclave: bytes


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A dataset (protected data) on chain. ``multiaddr`` is the bytes as stored."""

    address: Address
    owner: Address
    registry: Address
    name: str
    multiaddr: bytes
    checksum: Bytes32


@dataclass(frozen=True, slots=True)
class WorkerpoolEntry:
    """A workerpool on chain. Ratios are percent."""

    address: Address
    owner: Address
    registry: Address
    description: str
    worker_stake_ratio: int
    scheduler_reward_ratio: int


def _value(to: Address, item: Function, *values: object) -> Read[Any]:
    return Read(to, item.encode(*values), item.decode_one)


def _address(to: Address, item: Function, *values: object) -> Read[Address]:
    return Read(to, item.encode(*values), lambda data: Address(item.decode_one(data)))


def entry_id(entry: Address) -> int:
    """The token id of an entry."""
    return int.from_bytes(entry.raw, "big")


class RegistryReads:
    """Reads of a registry and its entries, not made yet."""

    def __init__(self, registry: Address) -> None:
        self._registry = registry

    def is_registered(self, entry: Address) -> Read[bool]:
        """Whether the registry made the entry."""
        return _value(self._registry, FUNCTIONS["isRegistered"], entry)

    def owner_of(self, entry: Address) -> Read[Address]:
        """Who holds the entry's token; reverts when there is none."""
        return _address(self._registry, FUNCTIONS["ownerOf"], entry_id(entry))

    def balance_of(self, owner: Address) -> Read[int]:
        """How many entries an account holds."""
        return _value(self._registry, FUNCTIONS["balanceOf"], owner)

    def entry_of_owner(self, owner: Address, index: int) -> Read[Address]:
        """The account's entry at an index; reverts out of range."""
        item = FUNCTIONS["tokenOfOwnerByIndex"]
        return Read(self._registry, item.encode(owner, index), lambda data: _entry(item.decode_one(data)))

    def fields(self, entry: Address, *names: str) -> list[Read[Any]]:
        """The owner, the registry and the named fields of an entry."""
        return [_value(entry, ENTRY_FUNCTIONS[name]) for name in ("owner", "registry", *names)]


def _entry(token_id: int) -> Address:
    try:
        return Address.from_raw(token_id.to_bytes(20, "big"))
    except OverflowError as error:
        raise DecodeError(f"token id {token_id} is no address") from error


class Registry:
    """A registry. Reads name a block; writes return a ``Call``. Safe to use from several threads.

    Reads raise what ``JsonRpc`` raises; a read of an entry's fields returns None when the registry has no such entry.
    """

    def __init__(self, rpc: JsonRpc, address: Address) -> None:
        self.rpc = rpc
        self.address = Address(address)
        self.reads = RegistryReads(self.address)

    def is_registered(self, entry: Address, *, block: Block) -> bool:
        """Whether the registry made the entry."""
        return self.rpc.read(self.reads.is_registered(entry), block=block)

    def owner_of_entry(self, entry: Address, *, block: Block) -> Address | None:
        """Who owns an entry; None when the registry has no such entry."""
        try:
            owner = self.rpc.read(self.reads.owner_of(entry), block=block)
        except TransactionReverted:
            return None
        return None if owner == ZERO_ADDRESS else owner

    def balance_of(self, owner: Address, *, block: Block) -> int:
        """How many entries an account holds."""
        return self.rpc.read(self.reads.balance_of(owner), block=block)

    def entry_of_owner(self, owner: Address, index: int, *, block: Block) -> Address:
        """The account's entry at an index; reverts out of range."""
        return self.rpc.read(self.reads.entry_of_owner(owner, index), block=block)

    def entries_of_owner(self, owner: Address, *, block: int) -> list[Address]:
        """All entries of an account, in two round trips."""
        count = self.balance_of(owner, block=block)
        return self.rpc.read_all([self.reads.entry_of_owner(owner, index) for index in range(count)], block=block)

    def _fields(self, entry: Address, names: tuple[str, ...], block: Block) -> list[Any] | None:
        """Read an entry's fields, checking that this registry made it."""
        try:
            registered, *values = self.rpc.read_all(
                [self.reads.is_registered(entry), *self.reads.fields(entry, *names)], block=block
            )
        except (DecodeError, TransactionReverted):
            # Where no such entry stands its getters fail; ask the registry alone before saying so.
            if not self.is_registered(entry, block=block):
                return None
            raise
        return values if registered else None

    def app(self, entry: Address, *, block: Block) -> AppEntry | None:
        """An app's fields; None when the registry has no such app."""
        names = ("m_appName", "m_appType", "m_appMultiaddr", "m_appChecksum", "m_appMREnclave")
        values = self._fields(entry, names, block)
        if values is None:
            return None
        owner, registry, name, kind, multiaddr, checksum, mrenclave = values
        word = Bytes32.from_raw(checksum)
        return AppEntry(entry, Address(owner), Address(registry), name, kind, multiaddr, word, mrenclave)

    def dataset(self, entry: Address, *, block: Block) -> DatasetEntry | None:
        """A dataset's fields; None when the registry has no such dataset."""
        values = self._fields(entry, ("m_datasetName", "m_datasetMultiaddr", "m_datasetChecksum"), block)
        if values is None:
            return None
        owner, registry, name, multiaddr, checksum = values
        return DatasetEntry(entry, Address(owner), Address(registry), name, multiaddr, Bytes32.from_raw(checksum))

    def workerpool(self, entry: Address, *, block: Block) -> WorkerpoolEntry | None:
        """A workerpool's fields; None when the registry has no such workerpool."""
        names = ("m_workerpoolDescription", "m_workerStakeRatioPolicy", "m_schedulerRewardRatioPolicy")
        values = self._fields(entry, names, block)
        if values is None:
            return None
        owner, registry, description, stake_ratio, reward_ratio = values
        return WorkerpoolEntry(entry, Address(owner), Address(registry), description, stake_ratio, reward_ratio)

    # Creating entries. The same arguments always give the same address.

    def create_app(
        self, owner: Address, name: str, type_: str, multiaddr: bytes, checksum: Bytes32, mrenclave: bytes = b""
    ) -> Call:
        """Register an app."""
        return self._call("createApp", owner, name, type_, multiaddr, checksum.raw, mrenclave)

    def predict_app(
        self,
        owner: Address,
        name: str,
        type_: str,
        multiaddr: bytes,
        checksum: Bytes32,
        mrenclave: bytes = b"",
        *,
        block: Block,
    ) -> Address:
        """The address that ``create_app`` with the same arguments gives."""
        item = FUNCTIONS["predictApp"]
        read = _address(self.address, item, owner, name, type_, multiaddr, checksum.raw, mrenclave)
        return self.rpc.read(read, block=block)

    def create_dataset(self, owner: Address, name: str, multiaddr: bytes, checksum: Bytes32) -> Call:
        """Register a dataset."""
        return self._call("createDataset", owner, name, multiaddr, checksum.raw)

    def predict_dataset(
        self, owner: Address, name: str, multiaddr: bytes, checksum: Bytes32, *, block: Block
    ) -> Address:
        """The address that ``create_dataset`` with the same arguments gives."""
        read = _address(self.address, FUNCTIONS["predictDataset"], owner, name, multiaddr, checksum.raw)
        return self.rpc.read(read, block=block)

    def create_workerpool(self, owner: Address, description: str) -> Call:
        """Register a workerpool."""
        return self._call("createWorkerpool", owner, description)

    def predict_workerpool(self, owner: Address, description: str, *, block: Block) -> Address:
        """The address that ``create_workerpool`` with the same arguments gives."""
        return self.rpc.read(_address(self.address, FUNCTIONS["predictWorkerpool"], owner, description), block=block)

    def change_policy(self, workerpool: Address, worker_stake_ratio: int, scheduler_reward_ratio: int) -> Call:
        """Set a workerpool's ratios (its owner)."""
        return Call(workerpool, ENTRY_FUNCTIONS["changePolicy"].encode(worker_stake_ratio, scheduler_reward_ratio))

    def approve(self, spender: Address, entry: Address) -> Call:
        """Let ``spender`` move an entry."""
        return self._call("approve", spender, entry_id(entry))

    def transfer(self, owner: Address, receiver: Address, entry: Address) -> Call:
        """Give an entry to somebody else, who must be able to receive it."""
        return self._call("safeTransferFrom", owner, receiver, entry_id(entry))

    def _call(self, name: str, *values: Any) -> Call:
        return Call(self.address, FUNCTIONS[name].encode(*values))

    def created_entry(self, receipt: Receipt) -> Address:
        """The entry that a transaction made.

        Raises:
            DecodeError: it made none, or several.
        """
        return created_entry(self.address, receipt)


def created_entry(registry: Address, receipt: Receipt) -> Address:
    """The entry of ``registry`` that a transaction made; see ``Registry.created_entry``.

    Raises:
        DecodeError: it made none, or several.
    """
    made = [
        event.entry
        for log in receipt.logs
        if log.address == registry
        if isinstance(event := decode_log(log), EntryTransfer) and event.sender == ZERO_ADDRESS
    ]
    if len(made) != 1:
        raise DecodeError(f"transaction {receipt.transaction} made {len(made)} entries, expected one")
    return made[0]
