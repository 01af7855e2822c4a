"""What became of an owner's data: every release and refusal, out of the SMS's transparency log, with proof.

The head of the log must be signed by the SMS that the hub names, and must continue the head that this machine saw last
(``networks/<name>/log-head.json``). A log that shrank, or that tells somebody else another story, is a loud error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.attestation.transparency import (
    LogOrigin,
    SignedHead,
    fold_root,
    frontier,
    grow,
    hash_leaf,
    verify_consistency,
    verify_head,
    verify_inclusion,
)
from cloister.errors import DecodeError, VerificationError
from cloister.files import write_durably
from cloister.protocol.codec import (
    Address,
    check_keys,
    parse_address,
    parse_hex,
    parse_json,
    parse_uint,
    parse_word,
    to_hex,
)
from cloister.sdk.connection import Connection
from cloister.sdk.home import network_folder

HEAD_NAME = "log-head.json"
CONFLICT_NAME = "log-head.conflict.json"
PAGE = 256
_HEAD_CAP = 4096


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of the log: what the SMS decided about this data. ``order_hash`` names the grant, ``index`` the line's place.

    ``at`` is in unix seconds. ``reason`` is the code of the check that refused, None for a release.
    """

    index: int
    at: int
    outcome: str
    reason: str | None
    task_id: str
    deal_id: str | None
    requester: str | None
    app: str | None
    worker: str | None
    order_hash: str | None
    policy_hash: str | None
    evidence_kind: str | None

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class History:
    """Every decision about one protected data, oldest first, each proven to be in the log of ``head``.

    ``complete`` says that the whole log was read: then there is none beside these. Otherwise the SMS chose which to tell.
    """

    address: Address
    entries: tuple[HistoryEntry, ...]
    head: SignedHead
    complete: bool

    def __iter__(self) -> Iterator[HistoryEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {
            "address": self.address,
            "complete": self.complete,
            "log": {
                "sms": Address.from_raw(self.head.origin.sms),
                "size": self.head.size,
                "root": to_hex(self.head.root),
                "timestamp": self.head.timestamp,
            },
            "entries": [entry.to_json() for entry in self.entries],
        }


class DataHistory:
    """Reads the log of one network."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._path = _folder(connection) / HEAD_NAME

    def read(self, address: Address, *, complete: bool) -> History:
        """The history of one protected data. ``complete`` reads the whole log, which proves that nothing is left out;
        without it the SMS's own list is taken (for the owner alone), and each line of it proven.

        Raises:
            VerificationError: ``log-shrunk``, ``log-split``, ``log-head-signature``, ``log-inclusion``: the SMS does not
            stand by its record. Denied: somebody else's data (only without ``complete``).
        """
        if complete:
            head = self.head()
            return History(address, self._scan(head, address), head, complete=True)
        sms, signer = self._connection.sms, self._connection.signer
        places = [parse_uint("log_index", row.get("log_index")) for row in sms.releases(address, signer)]
        head = self.head()
        return History(address, tuple(self._prove(index, head, address) for index in places), head, complete=False)

    def head(self) -> SignedHead:
        """The log's head, proven to continue the one that this machine saw last, and remembered.

        Raises:
            VerificationError: it does not.
        """
        sms, network = self._sms(), self._connection.network
        origin = LogOrigin(network.chain_id, network.contracts.hub.raw, sms.raw)
        # Before the head is asked for: another process may pin a later one meanwhile, which is no shrunk log.
        known = self._pinned(origin)
        head = self._connection.sms.log_head(sms)
        self._check(known, head)
        known = self._pinned(origin)
        if known is None or known.size < head.size:
            write_durably(self._path, _build_head(head))
        return head

    def _check(self, known: SignedHead | None, head: SignedHead) -> None:
        if known is None:
            return
        path: tuple[bytes, ...] = ()
        if 0 < known.size < head.size:
            path = self._connection.sms.log_consistency(known.size, head.size)
        try:
            verify_consistency(known.size, head.size, path, known.root, head.root)
        except VerificationError as error:
            write_durably(self._path.with_name(CONFLICT_NAME), _build_head(head))
            error.hint = (
                f"keep {HEAD_NAME} and {CONFLICT_NAME} in {self._path.parent}: both are signed by the sms, and prove it"
            )
            raise

    def _sms(self) -> Address:
        """Who must sign: the hub's word where it has one."""
        broker = self._connection.hub.contract("teebroker", block="latest")
        return self._connection.sms.identity() if broker.is_zero else broker

    def _pinned(self, origin: LogOrigin) -> SignedHead | None:
        if not self._path.exists():
            return None
        try:
            with self._path.open("rb") as file:
                return verify_head(_parse_head(parse_json(file.read(_HEAD_CAP))), origin)
        except (DecodeError, VerificationError) as error:
            raise VerificationError(
                f"the pinned head of the log cannot be used: {error.message}",
                code=error.code,
                hint=f"if this network was set up anew, remove {self._path}",
            ) from error

    def _scan(self, head: SignedHead, address: Address) -> tuple[HistoryEntry, ...]:
        """Read every entry, prove that they make the head's root, and keep those of the data."""
        known: dict[tuple[int, int], bytes] = {}
        found: list[HistoryEntry] = []
        for start in range(0, head.size, PAGE):
            end = min(start + PAGE, head.size)
            entries = self._connection.sms.log_entries(start, end)
            if len(entries) != end - start:
                raise VerificationError(f"the log keeps back entries between {start} and {end}", code="log-omission")
            known |= grow(start, known, [hash_leaf(entry) for entry in entries])
            known = {node: known[node] for node in frontier(end)}
            parsed = (_parse_entry(entry, start + offset) for offset, entry in enumerate(entries))
            found += [_entry(values) for values in parsed if values["dataset"] == address]
        if fold_root(head.size, known) != head.root:
            raise VerificationError("the log's entries are not those of its signed head", code="log-inclusion")
        return tuple(found)

    def _prove(self, index: int, head: SignedHead, address: Address) -> HistoryEntry:
        sms = self._connection.sms
        if index >= head.size:
            raise VerificationError(f"entry {index} is not in the log of {head.size} entries", code="log-inclusion")
        entries = sms.log_entries(index, index + 1)
        if len(entries) != 1:
            raise VerificationError(f"the log keeps back entry {index}", code="log-omission")
        verify_inclusion(entries[0], index, head.size, sms.log_inclusion(index, head.size), head.root)
        values = _parse_entry(entries[0], index)
        if values["dataset"] != address:
            raise VerificationError(f"entry {index} of the log is of other data", code="log-inclusion")
        return _entry(values)


def _folder(connection: Connection) -> Path:
    """Where the head is pinned: the network's own folder, or one for the chain and hub of a network found by URL."""
    if "://" not in connection.source:
        return network_folder(connection.source)
    return network_folder(f"remote-{connection.network.chain_id}-{connection.network.contracts.hub.lower()}")


def _parse_entry(entry: bytes, index: int) -> dict[str, Any]:
    value = parse_json(entry)
    if not isinstance(value, dict) or value.get("index") != index or "dataset" not in value:
        raise DecodeError(f"entry {index} of the log does not parse", code="log-entry")
    dataset = value["dataset"]
    return {**value, "dataset": None if dataset is None else parse_address("dataset", dataset)}


def _entry(values: dict[str, Any]) -> HistoryEntry:
    """Types of a foreign document are checked here; what the words mean is the SMS's to say."""
    numbers = {name: parse_uint(name, values.get(name)) for name in ("index", "at")}
    texts: dict[str, str | None] = {}
    for name in HistoryEntry.__slots__:
        if name not in numbers:
            text = values.get(name)
            if text is not None and not isinstance(text, str):
                raise DecodeError(f"the log's entry has a {name} that is no text", code="log-entry")
            texts[name] = text
    if texts["outcome"] not in ("released", "refused") or texts["task_id"] is None:
        raise DecodeError("the log's entry has no outcome or no task", code="log-entry")
    return HistoryEntry(**numbers, **texts)  # type: ignore[arg-type]  # the two that may not be None were checked


def _build_head(head: SignedHead) -> bytes:
    members = {
        "chain_id": head.origin.chain_id,
        "hub": Address.from_raw(head.origin.hub),
        "sms": Address.from_raw(head.origin.sms),
        "size": head.size,
        "root": to_hex(head.root),
        "timestamp": head.timestamp,
        "signature": to_hex(head.signature),
    }
    return json.dumps(members, indent=1).encode()


def _parse_head(value: object) -> SignedHead:
    names = ("chain_id", "hub", "sms", "size", "root", "timestamp", "signature")
    given = check_keys("pinned head", value, required=names)
    origin = LogOrigin(
        parse_uint("chain_id", given["chain_id"]),
        parse_address("hub", given["hub"]).raw,
        parse_address("sms", given["sms"]).raw,
    )
    return SignedHead(
        origin,
        parse_uint("size", given["size"], maximum=2**53 - 1),
        parse_word("root", given["root"]).raw,
        parse_uint("timestamp", given["timestamp"], maximum=2**53 - 1),
        parse_hex(given["signature"], length=65),
    )
