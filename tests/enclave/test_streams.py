"""Who may read what an iApp printed: every combination of whose secrets are there and how the result is closed."""

from __future__ import annotations

import itertools
import json

import pytest
from tests.enclave.world import APP, CHAIN_ID, HUB, REQUESTER, WORKER

from cloister.enclave.streams import Streams
from cloister.protocol.codec import ZERO_ADDRESS, Bytes32
from cloister.protocol.releases import BulkItem, RefusedDataset, Release, ReleasedApp, ReleasedDataset, ResultFormat

WORD = Bytes32("0x" + "ab" * 32)
DATASET = ReleasedDataset(APP, "/ipfs/Qm", WORD, "key")
NAMES = {"stdout.txt", "stderr.txt", "usage.json"}
PRINTED = Streams("out", "err", 3, 1.23456, 4096)
ROOM = 10_000


def release(
    *,
    dataset: ReleasedDataset | None = None,
    bulk: tuple[BulkItem, ...] | None = None,
    app_secret: str | None = None,
    secrets: bool = False,
    form: ResultFormat = ResultFormat.HPKE,
    logs: bool = False,
) -> Release:
    return Release(
        task_id=WORD,
        deal_id=WORD,
        index=0,
        bot_first=0,
        bot_size=1,
        chain_id=CHAIN_ID,
        hub=HUB,
        worker=WORKER,
        beneficiary=REQUESTER,
        requester=REQUESTER,
        callback=ZERO_ADDRESS,
        params="{}",
        app=ReleasedApp(APP, "/ipfs/Qm", WORD),
        dataset=dataset,
        bulk=bulk,
        app_secret=app_secret,
        requester_secrets={"1": "mine"} if secrets else {},
        result_format=form,
        result_public_key=None if form is ResultFormat.PLAIN else b"key",
        deadline=2**40,
        logs=logs,
    )


FOREIGN = {
    "nobody": {},
    "dataset": {"dataset": DATASET},
    "bulk": {"bulk": (DATASET,)},
    "refused bulk": {"bulk": (RefusedDataset(APP, "order-closed", "no"),)},
    "app secret": {"app_secret": "theirs"},
    "both": {"dataset": DATASET, "app_secret": "theirs"},
}


@pytest.mark.parametrize(
    ("whose", "secrets", "form", "logs"), itertools.product(FOREIGN, (False, True), ResultFormat, (False, True))
)
def test_every_combination(whose: str, secrets: bool, form: ResultFormat, logs: bool) -> None:
    """Abuse 64: what is another's is readable only where they said so, and then only sealed."""
    told = release(**FOREIGN[whose], secrets=secrets, form=form, logs=logs)  # type: ignore[arg-type]
    sealed, foreign = form is not ResultFormat.PLAIN, whose != "nobody"
    allowed = (sealed and logs) if foreign else (sealed or not secrets)
    assert set(PRINTED.for_requester(told, room=ROOM)) == (NAMES if allowed else set())
    # No owner's word gives the host more than it has: all of it, where nobody keeps anything secret.
    host = PRINTED.for_host(told)
    if foreign or secrets or sealed:
        assert (host["stdout"], "exit_code" in host) == ("", False)
        assert "withheld" in str(host["stderr"])
    else:
        assert host == {"stdout": "out", "stderr": "err", "exit_code": 3}


def test_usage_says_what_the_run_took() -> None:
    files = PRINTED.for_requester(release(), room=0)
    assert json.loads(files["usage.json"]) == {"seconds": 1.235, "peak_memory_bytes": 4096, "exit_code": 3}
    assert (files["stdout.txt"], files["stderr.txt"]) == (b"out", b"err")


def test_an_app_that_did_not_run_printed_nothing() -> None:
    assert Streams().for_requester(release(logs=True), room=ROOM) == {}


def test_what_an_owner_lets_be_read_keeps_to_the_owner_s_limit() -> None:
    printed = Streams("o" * 500 + "end", "e" * 100 + "why", 1, 0.5, 1)
    told = release(dataset=DATASET, logs=True)
    whole = printed.for_requester(told, room=ROOM)
    usage = len(whole["usage.json"])
    assert {name: len(content) for name, content in whole.items()} == {
        "usage.json": usage,
        "stderr.txt": 103,
        "stdout.txt": 503,
    }
    for room in (0, 1, usage - 1, usage, usage + 50, usage + 103, usage + 110, usage + 606):
        files = printed.for_requester(told, room=room)
        assert sum(map(len, files.values())) == min(room, usage + 606)
    assert printed.for_requester(told, room=usage + 110)["stdout.txt"] == b"ooooend"
    assert printed.for_requester(told, room=usage + 3)["stderr.txt"] == b"why"
    assert "usage.json" not in printed.for_requester(told, room=usage - 1)
