"""Events of the DataProtector subgraph become entities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from cloister.chain.logs import DatasetSchema, EntryTransfer
from cloister.datasets.schema import parse_schema, schema_entries
from cloister.errors import CloisterError
from cloister.protocol.codec import Bytes32
from cloister.services.indexer.facts import Facts
from cloister.services.indexer.subgraphs import DATAPROTECTOR, POCO
from cloister.services.indexer.tables import EntityWriter, clean_text

MAX_ENTRIES = 1000
"""Most entries of one schema that can be searched; the schema itself is kept whole."""


@dataclass(frozen=True, slots=True)
class At:
    """Where in the chain something happened; ``time`` is unix seconds."""

    block: int
    time: int
    transaction: Bytes32

    def mined(self) -> dict[str, Any]:
        """The fields of an entity that say so."""
        return {"blockNumber": self.block, "transactionHash": str(self.transaction)}


class DataHandler:
    """Writes protected data and its owners."""

    def __init__(self, session: Session, facts: Facts) -> None:
        self._write = EntityWriter(session, DATAPROTECTOR)
        self._registry = EntityWriter(session, POCO)
        self._facts = facts

    def protect(self, event: DatasetSchema, at: At) -> None:
        """A dataset was made with a schema. One that cannot be read costs its author the entry."""
        entry = self._facts.entries.get(event.dataset, {})
        owner = self._owner(event)
        name, multiaddr, checksum = entry.get("name"), entry.get("multiaddr"), entry.get("checksum")
        if owner is None or name is None or multiaddr is None or checksum is None:
            return
        entries = _entries_of(event.schema)[:MAX_ENTRIES]
        for each in entries:
            path, _, kind = each.rpartition(":")
            self._write.put("SchemaEntry", each, at.block, path=path, type=kind)
        self._write.put(
            "ProtectedData",
            event.dataset.lower(),
            at.block,
            owner=self._account(owner, at),
            name=name,
            jsonSchema=clean_text(event.schema),
            schema=entries,
            isIncludedInSubscription=False,
            isRentable=False,
            isForSale=False,
            multiaddr=multiaddr,
            checksum=checksum,
            creationTimestamp=at.time,
            **at.mined(),
        )

    def _owner(self, event: DatasetSchema) -> str | None:
        """Who owned it in that very block: the registry said so before; who owns it now may be somebody else."""
        registered = self._registry.get("Dataset", event.dataset.lower())
        if registered is not None:
            return str(registered["owner"])
        owner = self._facts.owners.get(event.dataset)
        return None if owner is None else owner.lower()

    def transfer(self, event: EntryTransfer, at: At) -> None:
        """A dataset changed hands; only protected data that is known already is concerned."""
        identity = event.entry.lower()
        if self._write.get("ProtectedData", identity) is not None:
            self._write.put(
                "ProtectedData",
                identity,
                at.block,
                owner=self._account(event.receiver.lower(), at),
                isIncludedInSubscription=False,
                isRentable=False,
                isForSale=False,
            )

    def _account(self, identity: str, at: At) -> str:
        self._write.put("Account", identity, at.block)
        return identity


def _entries_of(schema: str) -> list[str]:
    """The schema's entries; a text that is no schema has none, as the chain takes any text."""
    try:
        return list(dict.fromkeys(schema_entries(parse_schema(schema))))
    except CloisterError:
        return []
