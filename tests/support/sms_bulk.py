"""A bulk request in a ``World``: many datasets with owners, keys and grants, and the slices that name them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.sms_world import DATASET_KEY, World, private_key

from cloister.protocol import authorization
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, keccak256
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import TEE_TDX
from cloister.protocol.units import INFINITE_VOLUME
from cloister.services.sms.ledger import DatasetEntry
from cloister.storage.local import LocalStore


@dataclass(frozen=True, slots=True)
class Contributor:
    """Somebody who grants a dataset for bulk use."""

    owner: PrivateKey
    dataset: Address
    order: DatasetOrder


class BulkWorld(World):
    """A deal without a dataset, whose request names a slice of granted ones."""

    def __init__(self, folder: Path, *, size: int = 3, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.content = self.files = LocalStore(folder / "content")
        self.contributors = [self.make_contributor(f"contributor {number}") for number in range(size)]

    def make_contributor(self, name: str) -> Contributor:
        """Register a dataset of a new owner, with a grant; its key is not pushed yet."""
        owner = private_key(name)
        dataset = Address.from_raw(keccak256(name.encode())[:20])
        self.ledger.owners[dataset] = owner.address
        checksum = Bytes32.from_raw(keccak256(dataset.raw))
        self.ledger.datasets[dataset] = DatasetEntry(owner.address, f"/ipfs/Qm{name.replace(' ', '')}", checksum)
        return Contributor(owner, dataset, self.grant(owner, dataset))

    def grant(self, owner: PrivateKey, dataset: Address, **values: Any) -> DatasetOrder:
        """A grant as bulk demands it, signed."""
        given = {"dataset": dataset, "volume": INFINITE_VOLUME, "tag": TEE_TDX, **values}
        return self.sign(DatasetOrder(**given), owner)

    def regrant(self, index: int, **values: Any) -> DatasetOrder:
        """Another grant of a contributor's dataset."""
        person = self.contributors[index]
        return self.grant(person.owner, person.dataset, **values)

    def push_keys(self) -> None:
        """Push every contributor's key, as iExec's clients do."""
        for person in self.contributors:
            self.push_key(person)

    def push_key(self, person: Contributor, value: str = DATASET_KEY) -> None:
        challenge = authorization.sms_web3_challenge(person.dataset, value)
        target = f"/secrets/web3?secretAddress={person.dataset}"
        assert self.set_secret("POST", target, value, challenge, person.owner)[0] == 204

    @property
    def orders(self) -> list[DatasetOrder]:
        """Every contributor's first grant."""
        return [person.order for person in self.contributors]

    def put(self, value: object) -> str:
        """Store JSON, or bytes as they are; returns the CID."""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return str(self.files.put([raw]).cid)

    def ask_for(self, root_cid: str, *, index: int = 0, dataset: Address = ZERO_ADDRESS, **params: Any) -> None:
        """Make the deal one whose request names this root."""
        self.make_deal(dataset=dataset, params=json.dumps({"bulk_cid": root_cid, **params}), bot_size=index + 1)
        self.task = dataclasses.replace(self.task, index=index)
        self.put_on_chain()

    def offer(self, slices: Sequence[Sequence[object]], *, index: int = 0, **params: Any) -> None:
        """Store slices, given as orders or as any JSON, and make the deal one that names them."""
        cids = [
            self.put([element.to_json() if isinstance(element, DatasetOrder) else element for element in elements])
            for elements in slices
        ]
        self.ask_for(self.put(cids), index=index, **params)
