"""What the SMS asks the chain, always at one named block, and when it refuses to believe the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cloister.errors import UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.deals import Deal
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.tasks import Task


@dataclass(frozen=True, slots=True)
class Head:
    """A block: its number and its Unix time in seconds."""

    number: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class AppEntry:
    """What the AppRegistry's entry says of an app; ``location`` is its multiaddr as text."""

    owner: Address
    location: str
    checksum: Bytes32


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """What the DatasetRegistry's entry says of a dataset; ``location`` is its multiaddr as text."""

    owner: Address
    location: str
    checksum: Bytes32


@dataclass(frozen=True, slots=True)
class Matched:
    """The OrdersMatched event of one deal."""

    deal_id: Bytes32
    dataset_hash: Bytes32
    request_hash: Bytes32
    block: int


@dataclass(frozen=True, slots=True)
class OfferStanding:
    """What the chain says of one dataset order that a bulk slice offers to a deal.

    ``entry`` is None for a dataset that its registry did not make. ``admitted`` says whether every restriction of the
    order holds for the deal. ``objection`` is the hub's own reason against the order for this deal
    (``assertDatasetDealCompatibility``), None when it has none.
    """

    entry: DatasetEntry | None
    signed: bool
    closed: bool
    admitted: bool
    objection: str | None


@dataclass(frozen=True, slots=True)
class Offer:
    """A dataset order of a bulk slice and its hash on the hub."""

    order: DatasetOrder
    order_hash: Bytes32


class Ledger(Protocol):
    """Reads of the chain. Safe to call from several threads.

    Every method raises ``UnavailableError`` when no node answers. What does not exist is None; a node that answers
    garbage is a ``RemoteError``.
    """

    def head(self) -> Head:
        """The newest block."""
        ...

    def owner_of(self, entry: Address, *, block: int) -> Address | None:
        """Current owner of a registered app, dataset or workerpool, by its own ``owner()``."""
        ...

    def task(self, task_id: Bytes32, *, block: int) -> tuple[Task, Deal] | None:
        """A task and its deal; None for a task that was never initialized."""
        ...

    def grounds(
        self, deal_id: Bytes32, deal: Deal, match_transaction: Bytes32, *, block: int
    ) -> tuple[AppEntry, DatasetEntry | None, Matched | None]:
        """The deal's app and dataset, and the deal's OrdersMatched event in that transaction, if mined by ``block``."""
        ...

    def grant_standing(
        self, order: DatasetOrder, order_hash: Bytes32, owner: Address, *, block: int
    ) -> tuple[bool, bool]:
        """Whether ``owner`` signed or presigned the order, and whether the order was closed."""
        ...

    def signed_by(self, owner: Address, digest: Bytes32, signature: bytes, *, block: int) -> bool:
        """Whether ``owner`` signed the 32 bytes: as an account, or as a contract that says so (ERC-1271)."""
        ...

    def offer_standings(
        self, offers: Sequence[Offer], deal_id: Bytes32, deal: Deal, *, block: int
    ) -> list[OfferStanding]:
        """How each order of a bulk slice stands toward the deal, in as few round trips as possible.

        What another's contract does (a group, an owner with a contract's signature) can only harm its own order.
        """
        ...

    def in_group(self, group: Address, member: Address, *, block: int) -> bool:
        """Whether an ERC-734 group has ``member`` under purpose 4."""
        ...


def check_recent(head: Head, *, now: int, max_age: int) -> Head:
    """Return ``head`` when it is at most ``max_age`` seconds old (abuse 52).

    Raises: UnavailableError for an older block, or one more than ``max_age`` in the future.
    """
    age = now - head.timestamp
    if age > max_age:
        raise UnavailableError(
            f"the newest block is {age} s old", hint="wait until the node has caught up", code="chain-behind"
        )
    if -age > max_age:
        raise UnavailableError(f"the newest block is {-age} s in the future", code="chain-ahead")
    return head
