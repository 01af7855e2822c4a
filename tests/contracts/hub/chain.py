"""The hub with all it needs on an in-process chain, called by raw ABI; gas as a real transaction would pay it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boa
from boa.util.abi import Address
from eth.db.storage import AccountStorageDB
from eth_abi.abi import decode, encode
from eth_abi.grammar import parse
from eth_hash.auto import keccak
from tests.contracts.hub.actors import (
    TEE_TDX,
    ZERO,
    Actor,
    AppOrder,
    DatasetOrder,
    Domain,
    RequestOrder,
    WorkerpoolOrder,
)
from tests.contracts.hub.interface import EVENTS, OWN_EVENTS

CONTRACTS = Path(__file__).resolve().parents[3] / "contracts"
MATCH = f"({AppOrder.abi()},{DatasetOrder.abi()},{WorkerpoolOrder.abi()},{RequestOrder.abi()})"
PARAMS = '{"iexec_args":"hello","iexec_result_storage_provider":"ipfs"}'
CATEGORY_SECONDS = 300


class Reverted(Exception):
    """A call failed; `data` is what it said."""

    def __init__(self, data: bytes) -> None:
        super().__init__(reason_of(data) or data.hex() or "no reason")
        self.data = data

    @property
    def reason(self) -> str | None:
        return reason_of(self.data)

    @property
    def text(self) -> str:
        """The text of a custom error with one string."""
        text: str = decode(["string"], self.data[4:])[0]
        return text


def reason_of(data: bytes) -> str | None:
    """Text of `Error(string)`, None for anything else."""
    if data[:4] != bytes.fromhex("08c379a0"):
        return None
    text: str = decode(["string"], data[4:])[0]
    return text


def selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


@dataclass(frozen=True, slots=True)
class Log:
    address: str
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    output: bytes
    gas: int
    logs: tuple[Log, ...]

    def value(self, kind: str) -> Any:
        return decode([kind], self.output)[0]

    def named(self, signature: str) -> list[Log]:
        return [log for log in self.logs if log.topics[0] == keccak(signature.encode())]


def intrinsic_gas(data: bytes) -> int:
    zeros = data.count(0)
    return 21_000 + 4 * zeros + 16 * (len(data) - zeros)


def floor_gas(data: bytes) -> int:
    """EIP-7623."""
    zeros = data.count(0)
    return 21_000 + 10 * (zeros + 4 * (len(data) - zeros))


@contextmanager
def _transaction(*warm: str) -> Iterator[None]:
    """What a real transaction has and a bare message on boa's chain has not: cold state, and old values for SSTORE's price.

    Undone afterwards, so that anchors around it still hold.
    """
    state = boa.env.evm.vm.state
    accounts = state._account_db
    accessed = accounts._journal_accessed_state
    read, write = AccountStorageDB.get, AccountStorageDB.set
    originals: dict[tuple[bytes, int], int] = {}

    def read_slot(storage: Any, slot: int, from_journal: bool = True) -> int:
        current = read(storage, slot)
        return current if from_journal else originals.get((storage._address, slot), current)

    def write_slot(storage: Any, slot: int, value: int) -> None:
        originals.setdefault((storage._address, slot), read(storage, slot))
        write(storage, slot, value)

    state.clear_transient_storage()
    accounts._reset_access_counters()
    AccountStorageDB.get, AccountStorageDB.set = read_slot, write_slot
    try:
        for address in [*(Address(each).canonical_address for each in warm), *state.computation_class._precompiles]:
            state.mark_address_warm(address)
        yield
    finally:
        AccountStorageDB.get, AccountStorageDB.set = read, write
        accounts._journal_accessed_state = accessed


def transact(sender: str, to: str, data: bytes, *, value: int = 0, gas: int = 30_000_000) -> Receipt:
    """One transaction: intrinsic gas and refunds counted."""
    intrinsic = intrinsic_gas(data)
    with _transaction(sender, to):
        computation = boa.env.execute_code(to_address=to, sender=sender, data=data, value=value, gas=gas - intrinsic)
    if computation.is_error:
        raise Reverted(computation.output)
    spent = intrinsic + computation.get_gas_used()
    spent -= min(computation.get_gas_refund(), spent // 5)
    logs = tuple(
        Log("0x" + address.hex(), tuple(topic.to_bytes(32, "big") for topic in topics), body)
        for address, topics, body in computation.get_log_entries()
    )
    return Receipt(computation.output, max(spent, floor_gas(data)), logs)


def call(to: str, data: bytes, sender: str | None = None) -> bytes:
    """A call that leaves no trace."""
    boa.env.evm.vm.state.clear_transient_storage()
    computation = boa.env.execute_code(
        to_address=to, sender=sender or ZERO, data=data, simulate=True, is_modifying=False, gas=30_000_000
    )
    if computation.is_error:
        raise Reverted(computation.output)
    output: bytes = computation.output
    return output


def now() -> int:
    timestamp: int = boa.env.timestamp
    return timestamp


@dataclass(frozen=True, slots=True)
class Chain:
    """Contracts, the people around them, and the usual offers."""

    deployer: str
    hub: str
    parts: dict[str, Any]
    rlc: Any
    apps: Any
    datasets: Any
    workerpools: Any
    app: str
    dataset: str
    workerpool: str
    app_owner: Actor = field(default_factory=lambda: Actor.named("app_owner"))
    data_owner: Actor = field(default_factory=lambda: Actor.named("data_owner"))
    pool_owner: Actor = field(default_factory=lambda: Actor.named("pool_owner"))
    requester: Actor = field(default_factory=lambda: Actor.named("requester"))
    worker: Actor = field(default_factory=lambda: Actor.named("worker"))
    enclave: Actor = field(default_factory=lambda: Actor.named("enclave"))
    attacker: Actor = field(default_factory=lambda: Actor.named("attacker"))

    @property
    def domain(self) -> Domain:
        return Domain(boa.env.evm.patch.chain_id, self.hub)

    def send(self, sender: Actor | str, signature: str, *args: Any, **options: Any) -> Receipt:
        """A transaction to the hub."""
        return transact(_address(sender), self.hub, calldata(signature, *args), **options)

    def raw(self, sender: Actor | str, data: bytes, **options: Any) -> Receipt:
        """A transaction to the hub with these bytes."""
        return transact(_address(sender), self.hub, data, **options)

    def raw_gas(self, sender: Actor | str, data: bytes) -> int:
        """What it would cost."""
        with boa.env.anchor():
            return self.raw(sender, data).gas

    def view(self, signature: str, returns: str, *args: Any, sender: str | None = None) -> Any:
        """The single value a view of the hub answers."""
        return decode([returns], call(self.hub, calldata(signature, *args), sender))[0]

    def view_nothing(self, signature: str, *args: Any) -> None:
        """Call a view that only refuses or not."""
        call(self.hub, calldata(signature, *args))

    def fund(self, account: Actor | str, amount: int) -> None:
        """Give an account stake in the hub."""
        self.rlc.approve(self.hub, amount, sender=self.deployer)
        self.send(self.deployer, "depositFor(uint256,address)", amount, _address(account))

    def account(self, account: Actor | str) -> tuple[int, int]:
        """Free and locked stake."""
        stake, locked = self.view("viewAccount(address)", "(uint256,uint256)", _address(account))
        return stake, locked

    def workerpools_policy(self, stake_ratio: int, reward_ratio: int) -> None:
        """Set the workerpool's policy."""
        data = calldata("changePolicy(uint256,uint256)", stake_ratio, reward_ratio)
        transact(self.pool_owner.address, self.workerpool, data)

    def events(self, receipt: Receipt) -> list[tuple[Any, ...]]:
        """The hub's events: name, then all values in their order."""
        return [_event(log) for log in receipt.logs if log.address == self.hub.lower()]

    @staticmethod
    def sources() -> Path:
        """Where the contracts are."""
        return CONTRACTS

    def orders(
        self,
        *,
        dataset: bool = True,
        app_price: int = 0,
        dataset_price: int = 0,
        workerpool_price: int = 0,
        volume: int = 1,
        trust: int = 0,
        tag: bytes = TEE_TDX,
        callback: str = ZERO,
        beneficiary: str | None = None,
        params: str = PARAMS,
        salt: bytes = bytes(32),
    ) -> Offers:
        """Four orders that match, not signed yet."""
        return Offers(
            AppOrder(self.app, app_price, volume, tag, salt=salt),
            DatasetOrder(self.dataset if dataset else ZERO, dataset_price, volume, tag, salt=salt),
            WorkerpoolOrder(self.workerpool, workerpool_price, volume, tag, trust=trust, salt=salt),
            RequestOrder(
                self.app,
                app_price,
                self.dataset if dataset else ZERO,
                dataset_price,
                self.workerpool,
                workerpool_price,
                self.requester.address,
                volume,
                tag,
                trust=trust,
                beneficiary=self.requester.address if beneficiary is None else beneficiary,
                callback=callback,
                params=params,
                salt=salt,
            ),
        )

    def signed(self, offers: Offers) -> Offers:
        """The same orders signed by whom they should be."""
        return Offers(
            offers.app.signed(self.app_owner, self.domain),
            offers.dataset.signed(self.data_owner, self.domain) if offers.dataset.dataset != ZERO else offers.dataset,
            offers.workerpool.signed(self.pool_owner, self.domain),
            offers.request.signed(self.requester, self.domain),
        )

    def match(self, offers: Offers, sender: Actor | None = None) -> bytes:
        """Match signed orders; the deal's id."""
        deal: bytes = self.send(sender or self.requester, "matchOrders" + MATCH, *offers.as_tuples()).value("bytes32")
        return deal


@dataclass(frozen=True, slots=True)
class Offers:
    app: AppOrder
    dataset: DatasetOrder
    workerpool: WorkerpoolOrder
    request: RequestOrder

    def as_tuples(self) -> Sequence[tuple[Any, ...]]:
        return [order.as_tuple() for order in (self.app, self.dataset, self.workerpool, self.request)]

    def with_(self, **changes: Any) -> Offers:
        """Change fields, each named `<order>_<field>`."""
        parts = {"app": self.app, "dataset": self.dataset, "workerpool": self.workerpool, "request": self.request}
        for name, value in changes.items():
            kind, _, attribute = name.partition("_")
            parts[kind] = parts[kind].with_(**{attribute: value})
        return Offers(**parts)


def calldata(signature: str, *args: Any) -> bytes:
    if signature.endswith("()"):
        return selector(signature)
    kinds = [kind.to_type_str() for kind in parse(signature[signature.index("(") :]).components]
    return selector(signature) + encode(kinds, args)


def _event(log: Log) -> tuple[Any, ...]:
    for name, kinds in (EVENTS | OWN_EVENTS).items():
        if keccak(f"{name}({kinds})".replace("*", "").encode()) == log.topics[0]:
            break
    else:
        return ("unknown", *log.topics)
    if kinds.startswith("("):
        return (name, *decode([kinds], log.data))
    parts = kinds.split(",")
    indexed = iter(log.topics[1:])
    plain = iter(decode([part for part in parts if not part.endswith("*")], log.data))
    return (name, *(decode([part[:-1]], next(indexed))[0] if part.endswith("*") else next(plain) for part in parts))


def refused(action: Callable[[], object]) -> str | bytes | None:
    """How an action was refused: the reason, the bytes of a custom error, or None for neither; fails if it was not."""
    try:
        action()
    except Reverted as refusal:
        return refusal.reason or refusal.data or None
    msg = "was not refused"
    raise AssertionError(msg)


def _address(account: Actor | str) -> str:
    return account.address if isinstance(account, Actor) else account
