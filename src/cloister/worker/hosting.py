"""What an enclave asks of its host, answered from the platform: SMS, scheduler, chain, content store, disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import Conflict, UnavailableError
from cloister.protocol.orders import DatasetOrder, OrderKind, parse_order
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionCall, SessionRequest
from cloister.protocol.tasks import TaskStatus
from cloister.transport import BROKEN_OFF
from cloister.worker.patience import Patience

if TYPE_CHECKING:
    from cloister.chain.contracts import Hub
    from cloister.clients.scheduler import Lease, WorkerCalls
    from cloister.clients.sms import SmsClient
    from cloister.protocol.codec import Bytes32
    from cloister.worker.fetching import ContentFetcher

RESULT_FILE = "result.sealed"
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
    patience: Callable[[], Patience]
    heard: Callable[[str], None]

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
        return self.patience().retry(lambda: self.sms.open_session(call))

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

    def fetch(self, location: str, purpose: str, max_bytes: int) -> Iterator[bytes]:
        """Fetch; after an interruption go on behind the bytes that were handed over. The agent proves the whole.

        Storage that is away is waited for; storage that answers and breaks off at the same byte each time has damaged
        content, and a slot is too good to wait for that.
        """
        passed, reached, turn, broken = 0, -1, 0, 0
        patience = self.patience()
        while True:
            try:
                for chunk in _behind(self.fetcher.fetch(location, purpose, max_bytes), passed):
                    passed += len(chunk)
                    yield chunk
            except UnavailableError as error:
                if passed > reached:  # it got further: that is no outage
                    patience, reached, turn, broken = self.patience(), passed, 0, 0
                broken = broken + 1 if error.code == BROKEN_OFF else 0
                if broken > _BROKEN_TRIES or not patience.pause(turn):
                    raise
                turn += 1
            else:
                return

    def store_result(self, chunks: Iterable[bytes], size: int) -> None:
        """Write the sealed result to disk, durably."""
        write_durably(self.folder / RESULT_FILE, chunks)

    def report(self, status: str) -> None:
        """Hear how far the agent is."""
        self.heard(status)


def make_folder(folder: Path) -> None:
    """Make a task's folder so that it is there after a loss of power."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for parent in (folder.parent, folder.parent.parent):
        _sync_folder(parent)


def write_durably(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file whole or not at all; on disk when this returns."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _behind(chunks: Iterator[bytes], passed: int) -> Iterator[bytes]:
    """The chunks without the first ``passed`` bytes."""
    for chunk in chunks:
        if passed >= len(chunk):
            passed -= len(chunk)
            continue
        yield chunk[passed:] if passed else chunk
        passed = 0
