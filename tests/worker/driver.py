"""A worker daemon of its own process, which kills itself (-9) once at a named moment.

Started as ``python -m tests.worker.driver SETTINGS.json``. Moments: ``before:STEP`` and ``after:STEP`` of a journal write,
``started`` and ``session`` of the enclave, ``before:drop``. ``hang:MOMENT`` sleeps there instead.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.enclaves import PaperRuntime, PaperSms

from cloister.chain.contracts import Hub
from cloister.chain.journal import Journal as TransactionJournal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.clients.scheduler import SchedulerClient
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey
from cloister.storage.local import LocalStore
from cloister.worker.daemon import Worker
from cloister.worker.enclaves import Enclaves
from cloister.worker.execution import Platform
from cloister.worker.fetching import ContentFetcher
from cloister.worker.journal import Entry, Journal
from cloister.worker.runtimes.runtime import EnclaveSpec
from cloister.worker.runtimes.runtime import Platform as EnclavePlatform
from cloister.worker.settings import WorkerSettings


class Reaper:
    """Kills this process the first time that the named moment comes; a file remembers that it did."""

    def __init__(self, folder: Path, moment: str | None) -> None:
        self._folder, self._moment = folder, moment

    def __call__(self, moment: str) -> None:
        with (self._folder / "moments").open("a") as file:
            file.write(moment + "\n")
        if self._moment == f"hang:{moment}":
            time.sleep(60)
        killed = self._folder / "killed"
        if moment == self._moment and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class MortalJournal(Journal):
    """A journal whose process may die on either side of every write."""

    def __init__(self, path: Path, reaper: Reaper) -> None:
        super().__init__(path)
        self._reaper = reaper

    def put(self, entry: Entry) -> None:
        self._reaper(f"before:{entry.step}")
        super().put(entry)
        self._reaper(f"after:{entry.step}")

    def drop(self, lease_id: str) -> None:
        self._reaper("before:drop")
        super().drop(lease_id)
        self._reaper("after:drop")


def main(told: dict[str, Any]) -> None:
    folder = Path(told["folder"])
    reaper = Reaper(folder, told["moment"])
    key, hub = PrivateKey.parse(told["key"]), Address(told["hub"])
    rpc, store = JsonRpc(told["rpc"]), LocalStore(folder / "content")
    scheduler = SchedulerClient(told["scheduler"], chain_id=rpc.chain_id, hub=hub)
    worker = Worker(
        Platform(
            settings=WorkerSettings(Address(told["workerpool"]), folder, wait_seconds=1, retry_seconds=0.1),
            journal=MortalJournal(folder / "journal.sqlite", reaper),
            scheduler=scheduler.worker(key),
            sms=PaperSms(Address(told["pool_owner"])),  # type: ignore[arg-type]  # the part of the client that is used
            store=store,
            fetcher=ContentFetcher(store),
            hub=Hub(rpc, hub),
            sender=TransactionSender(rpc, key, TransactionJournal(folder / "transactions.sqlite")),
            enclaves=Enclaves(PaperRuntime(reaper), EnclaveSpec(EnclavePlatform("paper"))),
        )
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
