"""How a task fails on a worker, in the field's words."""

from __future__ import annotations

from cloister.clients.scheduler import ReplicateStatus
from cloister.errors import CloisterError, RemoteError

TRANSIENT = frozenset({"ENCLAVE_DIED", "ENCLAVE_CHANNEL_BROKEN", "SANDBOX_FAILED"})
"""Causes of a failed enclave that may not be there a second time."""


class TaskFailed(RemoteError):  # a name of the protocol: the task failed here
    """The task cannot be done here. ``cause`` names why; ``status`` is the replicate's last; ``refusal`` is the SMS's code
    when it refused the session.
    """

    code = "task-failed"

    def __init__(self, status: ReplicateStatus, cause: str, message: str, *, refusal: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.cause = cause
        self.refusal = refusal


def cause_of(error: CloisterError) -> str:
    """A cause in the field's spelling."""
    return error.code.upper().replace("-", "_")


def failure_status(cause: str) -> ReplicateStatus:
    """The replicate status that goes with a cause."""
    if cause.startswith("APP_IMAGE"):
        return ReplicateStatus.APP_DOWNLOAD_FAILED
    if cause.startswith("PRE_COMPUTE"):
        return ReplicateStatus.DATA_DOWNLOAD_FAILED
    if cause == "ENCLAVE_ABORTED":
        return ReplicateStatus.ABORTED
    return ReplicateStatus.COMPUTE_FAILED
