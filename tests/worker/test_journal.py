"""The worker's journal and its patience."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.clients.scheduler import ContentReference, Lease
from cloister.errors import ConfigurationError, NotFound, UnavailableError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.worker.journal import Entry, Journal, SealedResult, Step, advance
from cloister.worker.patience import CalledOff, Patience

A, B = Address("0x" + "aa" * 20), Bytes32("0x" + "bb" * 32)
LEASE = Lease(
    lease_id="0" * 32,
    task_id=B,
    deal_id=B,
    index=3,
    chain_id=421614,
    hub=A,
    workerpool=A,
    trust=1,
    start_time=1,
    contribution_deadline=2,
    final_deadline=3,
    category_seconds=300,
    app=ContentReference(A, "/ipfs/Qm", B),
    dataset=None,
    params='{"iexec_args":"ü"}',
    callback=ZERO_ADDRESS,
    match_transaction=B,
    dataset_order={"dataset": A},
    expires_at=4,
)
SEALED = SealedResult("result.sealed", 5, B, A, b"\x01" * 65, b"\x02" * 65, b"\x03")


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    journal = Journal(path)
    entry = Entry(LEASE)
    journal.put(entry)
    entry = advance(entry, Step.SEALED, sealed=SEALED)
    journal.put(entry)
    other = Entry(replace(LEASE, lease_id="1" * 32))
    journal.put(other)
    journal.close()
    again = Journal(path)
    assert again.entries() == [entry, other]
    again.drop(other.lease.lease_id)
    assert again.entries() == [entry]
    with pytest.raises(NotFound):
        again.get(other.lease.lease_id)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_daemon_is_kept_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        Journal(tmp_path / "journal.sqlite")
    journal.close()
    Journal(tmp_path / "journal.sqlite").close()


def test_steps_never_go_back() -> None:
    entry = advance(Entry(LEASE), Step.UPLOADED, sealed=SEALED)
    with pytest.raises(ValueError, match="before"):
        advance(entry, Step.SEALED)


def test_patience_retries_what_is_unavailable_and_nothing_else() -> None:
    tries: list[int] = []

    def third_time() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise UnavailableError("down")
        return "up"

    patience = Patience(0.001, 0.01, time.monotonic() + 10, threading.Event())
    assert patience.retry(third_time) == "up"
    assert len(tries) == 3

    def refused() -> None:
        tries.append(1)
        raise NotFound("no")

    with pytest.raises(NotFound):
        patience.retry(refused)
    assert len(tries) == 4


def test_patience_ends_at_its_time_or_when_called_off() -> None:
    def down() -> None:
        raise UnavailableError("down")

    with pytest.raises(UnavailableError):
        Patience(0.001, 0.01, time.monotonic() + 0.05, threading.Event()).retry(down)
    off = threading.Event()
    threading.Timer(0.05, off.set).start()
    with pytest.raises(CalledOff):
        Patience(5, 5, time.monotonic() + 60, off).retry(down)
