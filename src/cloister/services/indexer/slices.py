"""Reads the slices of bulk deals in the background and writes what they say.

Content comes late, or never, or is not what it should be; none of that is met on the way of indexing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from cloister.errors import CloisterError, DecodeError, InputError, TooLarge, UnavailableError, quoted
from cloister.protocol.codec import Bytes32
from cloister.protocol.eip712 import Domain
from cloister.protocol.tasks import task_id
from cloister.services.database import Database
from cloister.services.indexer.bulks import FILE_CAP, SliceOrder, parse_root, parse_slice
from cloister.services.indexer.pending import (
    PendingFile,
    claim,
    expect_slices,
    finish,
    next_due,
    postpone,
    release,
)
from cloister.services.indexer.subgraphs import POCO
from cloister.services.indexer.tables import EntityWriter, unpack_big_int
from cloister.storage.cid import Cid

log = logging.getLogger("cloister.indexer")

READERS = 2
"""Files that are read at once."""
TURN = 16
"""Most files that one reader takes at once: what they say is written together."""
TURN_SECONDS = 10.0
FILE_SECONDS = 5.0
IDLE_SECONDS = 5.0
_FINAL = (DecodeError, TooLarge, InputError)
"""Errors that no second try changes: the content is there and is nothing that we read."""


class BulkContent(Protocol):
    """Where the files of bulk requests lie: a ``storage.content.ContentStore``, of which this much is needed."""

    def open(self, cid: Cid | str, *, cap: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file, proven to belong to its CID; see ``ContentStore.open`` for the errors."""
        ...


@dataclass(frozen=True, slots=True)
class _Root:
    slices: list[str | None]


@dataclass(frozen=True, slots=True)
class _Slice:
    orders: list[SliceOrder]


@dataclass(frozen=True, slots=True)
class _Later:
    """Could not be read now."""


@dataclass(frozen=True, slots=True)
class _Untried:
    """Was not begun."""


_Outcome = _Root | _Slice | _Later | _Untried


class SliceReader:
    """Threads that read pending files. Start and stop from one thread; ``wake`` is safe from any."""

    def __init__(self, database: Database, content: BulkContent, domain: Callable[[], Domain]) -> None:
        self._database = database
        self._content = content
        self._domain = domain
        self._stopping = threading.Event()
        self._wakes = [threading.Event() for _ in range(READERS)]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start reading what is pending from an earlier run as well."""
        self._threads = [
            threading.Thread(target=self._run, args=(wake,), name=f"indexer slices {number}", daemon=True)
            for number, wake in enumerate(self._wakes)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop after the file under way. Safe to call twice, and without a start."""
        self._stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join(FILE_SECONDS)
        self._threads = []

    def wake(self) -> None:
        """Tell that something new is pending."""
        for wake in self._wakes:
            wake.set()

    def step(self) -> float:
        """Read what is due, and return after how many seconds something may be due again.

        Raises: UnavailableError and what else the database raises; nothing is lost then.
        """
        with self._database.read_scope() as session:
            due = next_due(session)
        now = _now_ms()
        if due is None or due > now:
            return IDLE_SECONDS if due is None else min(IDLE_SECONDS, (due - now) / 1000)
        domain = self._domain()
        with self._database.session_scope() as session:
            files = claim(session, now, TURN)
        end = time.monotonic() + TURN_SECONDS
        outcomes = [(file, self._read(file, domain, end)) for file in files]
        with self._database.session_scope() as session:
            for file, outcome in outcomes:
                _write(session, file, outcome)
        return 0.0

    def _read(self, file: PendingFile, domain: Domain, end: float) -> _Outcome:
        if self._stopping.is_set() or time.monotonic() > end:
            return _Untried()
        try:
            raw = self._load(file.cid)
            return _Root(parse_root(raw)) if file.is_root else _Slice(parse_slice(raw, domain))
        except _FINAL as error:
            log.warning("bulk file %s of deal %s is unreadable: %s", quoted(file.cid), file.deal, error.code)
            return _Root([]) if file.is_root else _Slice([])
        except CloisterError as error:
            log.info("bulk file %s of deal %s is not read yet: %s", quoted(file.cid), file.deal, error.code)
            return _Later()

    def _load(self, cid: str) -> bytes:
        end = time.monotonic() + FILE_SECONDS
        raw = bytearray()
        for chunk in self._content.open(cid, cap=FILE_CAP):
            raw += chunk
            if len(raw) > FILE_CAP:
                raise TooLarge(f"a bulk file has at most {FILE_CAP} bytes")
            if time.monotonic() > end:
                raise UnavailableError("content storage is too slow", code="timeout")
        return bytes(raw)

    def _run(self, wake: threading.Event) -> None:
        while not self._stopping.is_set():
            delay = IDLE_SECONDS
            try:
                delay = self.step()
            except CloisterError as error:
                log.warning("bulk files were not read: %s", error.code)
            except Exception:
                log.exception("bulk files could not be read and are tried again")
            if delay > 0:
                wake.wait(delay)
                wake.clear()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _write(session: Session, file: PendingFile, outcome: _Outcome) -> None:
    match outcome:
        case _Later():
            postpone(session, file, _now_ms())
        case _Untried():
            release(session, file)
        case _Root(slices):
            if finish(session, file):
                expect_slices(session, file, _of_deal(session, file.deal, slices))
        case _Slice(orders):
            if finish(session, file):
                _write_slice(EntityWriter(session, POCO), file, orders)


def _of_deal(session: Session, deal: str, slices: list[str | None]) -> list[tuple[int, str]]:
    """The slices that are tasks of the deal: a request may be matched in several deals."""
    found = EntityWriter(session, POCO).get("Deal", deal)
    if found is None:
        return []
    first = int(unpack_big_int(found["bot_first"]))
    size = int(unpack_big_int(found["bot_size"]))
    return [(index, cid) for index, cid in enumerate(slices) if first <= index < first + size and cid is not None]


def _write_slice(write: EntityWriter, file: PendingFile, orders: list[SliceOrder]) -> None:
    for each in orders:
        order = each.order
        write.add(
            "DatasetOrder",
            str(each.order_hash),
            file.block,
            dataset=order.dataset.lower(),
            datasetprice=order.datasetprice,
            volume=order.volume,
            tag=str(order.tag),
            apprestrict=order.apprestrict.lower(),
            workerpoolrestrict=order.workerpoolrestrict.lower(),
            requesterrestrict=order.requesterrestrict.lower(),
            salt=str(order.salt),
            sign="0x" + order.sign.hex(),
        )
    task = str(task_id(Bytes32(file.deal), file.position))
    write.add(
        "BulkSlice",
        task,
        file.block,
        hash=file.cid,
        bulk=file.deal,
        task=task,
        index=file.position,
        datasets=list(dict.fromkeys(each.order.dataset.lower() for each in orders)),
        datasetOrders=[str(each.order_hash) for each in orders],
    )
