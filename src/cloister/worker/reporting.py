"""What a worker tells its scheduler at the end of a lease: the outcome, and the app's streams as a courtesy."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloister.clients.scheduler import WORKER_STOPPED, Lease, Outcome, ReplicateStatus, WorkerCalls
from cloister.errors import CloisterError, Conflict, NotFound
from cloister.files import write_durably
from cloister.protocol.codec import Bytes32, parse_hex
from cloister.worker.patience import CalledOff, Patience

log = logging.getLogger("cloister.worker")

LOGS_FILE = "logs.json"


class ReportLine:
    """Speaks for one lease."""

    def __init__(self, scheduler: WorkerCalls, lease: Lease, folder: Path) -> None:
        self._scheduler = scheduler
        self._lease = lease
        self._logs = folder / LOGS_FILE

    def tell(self, outcome: Outcome, patience: Patience) -> None:
        """Say how the lease ended, for as long as there is patience.

        Raises:
            CalledOff: the worker stops first.
        """
        try:
            patience.retry(lambda: self._scheduler.report(self._lease.lease_id, outcome))
        except CalledOff:
            raise
        except (NotFound, Conflict) as error:
            log.info("task %s: the scheduler no longer knows the lease: %s", self._lease.task_id, error.message)
        except CloisterError as error:
            # Nor will it be: the lease ends by itself, and what counts is on the chain.
            log.warning("task %s: the scheduler was not told: %s", self._lease.task_id, error.message)

    def give_back(self) -> bool:
        """Say that the worker stops. False when nobody heard it."""
        outcome = Outcome(ReplicateStatus.ABORTED, cause=WORKER_STOPPED, message="the worker was told to stop")
        try:
            self._scheduler.report(self._lease.lease_id, outcome)
        except CloisterError as error:
            log.info("task %s: not given back: %s", self._lease.task_id, error.message)
            return False
        return True

    def keep_logs(self, logs: Mapping[str, object]) -> None:
        """Write the app's streams to disk, durably."""
        write_durably(self._logs, [json.dumps(dict(logs)).encode()])

    def tell_logs(self) -> None:
        """Hand the app's streams on, once. A courtesy: neither the result nor the report waits for it."""
        try:
            logs = json.loads(self._logs.read_bytes())
            self._scheduler.give_logs(
                self._lease.lease_id, stdout=logs["stdout"], stderr=logs["stderr"], exit_code=logs.get("exit_code")
            )
            self._logs.unlink()
        except FileNotFoundError:
            pass  # there were none, or they were told
        except (OSError, ValueError, KeyError):
            log.warning("task %s: its logs are damaged", self._lease.task_id)
        except CloisterError as error:
            log.warning("task %s: logs were not kept: %s", self._lease.task_id, error.message)


def parse_outcome(document: Mapping[str, Any]) -> Outcome:
    """Read an outcome as the journal keeps it: the members that ``Outcome.to_json`` writes."""
    return Outcome(
        status=ReplicateStatus(document["status"]),
        cause=document.get("cause"),
        message=document.get("message"),
        refusal=document.get("refusal"),
        transaction=Bytes32(document["transaction"]) if document.get("transaction") else None,
        result_digest=Bytes32(document["result_digest"]) if document.get("result_digest") else None,
        results=document.get("results"),
        results_callback=parse_hex(document["results_callback"]) if document.get("results_callback") else b"",
    )
