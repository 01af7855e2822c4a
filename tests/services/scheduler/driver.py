"""A scheduler of its own process, to be killed. Started as ``python -m tests.services.scheduler.driver SETTINGS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cloister.chain.contracts import Hub
from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey
from cloister.services.application import build_application, serve
from cloister.services.database import open_database
from cloister.services.scheduler.part import build_scheduler_part
from cloister.services.scheduler.settings import SchedulerSettings


def main(told: dict[str, Any]) -> None:
    folder = Path(told["folder"])
    rpc, key = JsonRpc(told["rpc"]), PrivateKey.parse(told["key"])
    settings = SchedulerSettings(
        chain_id=rpc.chain_id,
        hub=Address(told["hub"]),
        workerpools=(Address(told["workerpool"]),),
        workers=frozenset(map(Address, told["workers"])),
        lease_seconds=3.0,
        leader_seconds=0.5,
    )
    part = build_scheduler_part(
        settings,
        database=open_database(told.get("database", folder / "scheduler.db")),
        key=key,
        hub=Hub(rpc, settings.hub),
        sender=TransactionSender(rpc, key, Journal(folder / "transactions.sqlite")),
    )
    serve(build_application([part]), port=told["port"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
