"""A session that the SMS refuses for good ends the task at its first lease, by name; any other refusal is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.deployed import DeployedChain, deployed  # noqa: F401
from tests.support.enclaves import PaperSms
from tests.support.scheduler_world import World, until
from tests.worker.test_outages import Bench, only_task, world  # noqa: F401

from cloister.errors import PolicyRejected
from cloister.protocol.sessions import SessionAnswer, SessionCall
from cloister.storage.local import LocalStore


@dataclass(frozen=True)
class StrictSms(PaperSms):
    """Refuses every session with one code."""

    code: str = ""

    def open_session(self, call: SessionCall) -> SessionAnswer:
        raise PolicyRejected("the grant does not allow it", code=self.code)


@pytest.mark.parametrize(("code", "final"), [("order-closed", True), ("enclave-refused", False)])
def test_a_refused_session(world: World, tmp_path: Path, code: str, final: bool) -> None:  # noqa: F811
    with world.scheduler() as client:
        sms = StrictSms(world.bazaar.pool_owner.address, code)
        bench = Bench(world, world.chain.rpc.url, world.url, LocalStore(tmp_path / "content"), sms)
        task = only_task(world, world.match(dataset=False))
        with bench.worker():
            until(lambda: bench.moments["started"] >= (1 if final else 2))
            if final:
                until(lambda: client.task(task).status == "RUNNING_FAILED")
        view = client.task(task)
        assert (bench.moments["started"] == 1) == final
        assert (view.status == "RUNNING_FAILED") == final
        if final:
            assert view.cause == "TEE_SESSION_REFUSED: the grant does not allow it"
