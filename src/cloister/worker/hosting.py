"""What an enclave asks of its host, answered from the platform: SMS, scheduler, chain, content store, disk."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Conflict, UnavailableError
from cloister.files import sync_folder, write_durably
from cloister.protocol.orders import DatasetOrder, OrderKind, parse_order
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionCall, SessionRequest
from cloister.protocol.tasks import TaskStatus
from cloister.transport import BROKEN_OFF
from cloister.worker.downloads import Downloads, Wanted
from cloister.worker.patience import Patience, SharedPatience
from cloister.worker.progress import ProgressLine

if TYPE_CHECKING:
    from cloister.chain.contracts import Hub
    from cloister.clients.scheduler import Lease, WorkerCalls
    from cloister.clients.sms import SmsClient
    from cloister.protocol.codec import Bytes32
    from cloister.protocol.countersigning import CountersignRequest
    from cloister.worker.connecting import Connector
    from cloister.worker.fetching import ContentFetcher

RESULT_FILE = "result.sealed"
NONCE_REFUSED = "nonce-refused"
"""The SMS's word for a nonce that it does not know, or not any more."""
FETCH_SECONDS = 6 * 3600.0
"""Longest that one fetch takes; the fetcher has shorter limits for each purpose, and every task has a deadline."""
_ACTIVE_POLL = 0.03
_ACTIVE_SECONDS = 5.0
_BROKEN_TRIES = 3
"""How often an answer that broke off is asked for again without a byte gained."""


@dataclass(frozen=True, slots=True)
class HostServices:
    """Answers one enclave (``relay.RelayServices``). What is unavailable is asked again for as long as ``patience`` says.

    ``patience`` gives a new one at each call; ``heard`` is told the agent's status words.
    """

    lease: Lease
    folder: Path
    scheduler: WorkerCalls
    sms: SmsClient
    hub: Hub
    fetcher: ContentFetcher
    connector: Connector
    patience: Callable[[], Patience]
    heard: Callable[[str], None]
    _shared: SharedPatience = field(init=False, repr=False)
    _downloads: Downloads = field(init=False, repr=False)
    _progress: ProgressLine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_shared", SharedPatience(self.patience))
        object.__setattr__(self, "_progress", ProgressLine(self._give_progress))
        object.__setattr__(self, "_downloads", Downloads(self._fetch, self.patience().off))

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        """Get a nonce from the SMS."""
        return self.patience().retry(lambda: self.sms.nonce(task_id))

    def session(self, request: SessionRequest) -> SessionAnswer:
        """Wait for the task to be active (its first transaction runs beside us), then open the session.

        Raises:
            Conflict: the task is over.
        """
        authorization = self.patience().retry(
            lambda: self.scheduler.authorize(self.lease.lease_id, request.enclave_challenge)
        )
        patience = self.patience()
        patience.retry(lambda: self._check_active(patience))
        call = SessionCall(
            request=request,
            scheduler_authorization=authorization,
            match_transaction=self.lease.match_transaction,
            dataset_order=self._dataset_order(),
        )
        return self._open_session(call)

    def _open_session(self, call: SessionCall) -> SessionAnswer:
        """Ask until the SMS answers. When it was away after it took the nonce, the nonce is used up, and the first
        reason is the one to go by: the next enclave has a nonce of its own.
        """
        away: UnavailableError | None = None

        def ask() -> SessionAnswer:
            nonlocal away
            try:
                return self.sms.open_session(call)
            except UnavailableError as error:
                away = away or error
                raise

        try:
            return self.patience().retry(ask)
        except CloisterError as error:
            if away is not None and error.code == NONCE_REFUSED:
                raise away from error
            raise

    def countersign(self, request: CountersignRequest) -> bytes:
        """Ask the SMS to countersign a receipt; asking again is harmless."""
        return self.patience().retry(lambda: self.sms.countersign(request))

    def _check_active(self, patience: Patience) -> None:
        for _ in range(int(_ACTIVE_SECONDS / _ACTIVE_POLL)):
            task = self.hub.task(self.lease.task_id, block="latest")
            if task is not None:
                if task.status is not TaskStatus.ACTIVE:
                    raise Conflict(f"the task is {task.status.name} already", code="task-ended")
                return
            if patience.off.wait(_ACTIVE_POLL):
                break
        raise UnavailableError("the task is not initialized yet")

    def _dataset_order(self) -> DatasetOrder | None:
        if self.lease.dataset_order is None:
            return None
        order = parse_order(OrderKind.DATASET, self.lease.dataset_order)
        return order if isinstance(order, DatasetOrder) else None

    def fetch(
        self,
        location: str,
        purpose: str,
        max_bytes: int,
        *,
        seconds: float = FETCH_SECONDS,
        ahead: tuple[str, ...] = (),
    ) -> Iterator[bytes]:
        """Fetch; after an interruption go on behind the bytes that were handed over. The agent proves the whole.

        Storage that is away is waited for; storage that answers and breaks off at the same byte each time has damaged
        content, and a slot is too good to wait for that.
        """
        wanted = Wanted(location, purpose, max_bytes)
        following = tuple(Wanted(item, purpose, max_bytes) for item in ahead)
        return self._downloads.read(wanted, seconds=min(seconds, FETCH_SECONDS), ahead=following)

    def close(self) -> None:
        """Let go of what is still on its way; the app's last progress may follow."""
        self._progress.close()
        self._downloads.close()

    def _fetch(self, wanted: Wanted) -> Iterator[bytes]:
        passed, reached, turn, broken = 0, -1, 0, 0
        # A slice's data share it: storage that is away is away for all. Whatever stands alone has its own.
        shared = self._shared if wanted.purpose == "dataset" else SharedPatience(self.patience)
        while True:
            try:
                for chunk in _behind(self._open(wanted), passed):
                    passed += len(chunk)
                    shared.moved()
                    yield chunk
            except UnavailableError as error:
                if passed > reached:  # it got further: that is no outage
                    reached, turn, broken = passed, 0, 0
                broken = broken + 1 if error.code == BROKEN_OFF else 0
                if broken > _BROKEN_TRIES or not shared.pause(turn):
                    raise
                turn += 1
            else:
                return

    def _open(self, wanted: Wanted) -> Iterator[bytes]:
        if wanted.purpose != "app":
            return self.fetcher.fetch(wanted.location, wanted.purpose, wanted.max_bytes)
        # An app on a registry is pulled by its digest on chain, whatever its name says.
        digest = self.lease.app.checksum.raw
        return self.fetcher.fetch(wanted.location, wanted.purpose, wanted.max_bytes, digest=digest)

    def store_result(self, chunks: Iterable[bytes], size: int) -> None:
        """Write the sealed result to disk, durably."""
        write_durably(self.folder / RESULT_FILE, chunks)

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to a host that the app names: once, since the app itself knows what may be tried again."""
        return self.connector.connect(host, port)

    def report(self, status: str) -> None:
        """Hear how far the agent is."""
        self.heard(status)

    def progress(self, number: int, update: bytes) -> None:
        """Pass an update of the app's progress on, when it can be."""
        self._progress.tell(number, update)

    def _give_progress(self, number: int, update: bytes) -> None:
        self.scheduler.give_progress(self.lease.lease_id, number, update)


def make_folder(folder: Path) -> None:
    """Make a task's folder so that it is there after a loss of power."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for parent in (folder.parent, folder.parent.parent):
        sync_folder(parent)


def _behind(chunks: Iterator[bytes], passed: int) -> Iterator[bytes]:
    """The chunks without the first ``passed`` bytes."""
    for chunk in chunks:
        if passed >= len(chunk):
            passed -= len(chunk)
            continue
        yield chunk[passed:] if passed else chunk
        passed = 0
