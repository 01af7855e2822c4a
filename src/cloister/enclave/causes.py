"""Named causes: why an iApp failed, or what of the platform did (reference 6.4; those without a counterpart there are
ours).
"""

from __future__ import annotations

from enum import StrEnum

from cloister.errors import CloisterError


class Cause(StrEnum):
    """``APP_*`` are the iApp's fault, or its requester's, and become its result; so do the first of ``POST_COMPUTE_*``,
    and an input file that nobody can fetch or open. The others end the task's lease, or an item of a bulk slice.
    """

    APP_COMPUTE_FAILED = "APP_COMPUTE_FAILED"
    APP_COMPUTE_TIMEOUT = "APP_COMPUTE_TIMEOUT"
    APP_MEMORY_EXCEEDED = "APP_MEMORY_EXCEEDED"
    APP_DISK_EXCEEDED = "APP_DISK_EXCEEDED"
    APP_PROCESSES_EXCEEDED = "APP_PROCESSES_EXCEEDED"
    APP_OUTPUT_FILES_EXCEEDED = "APP_OUTPUT_FILES_EXCEEDED"
    APP_OUTPUT_SIZE_EXCEEDED = "APP_OUTPUT_SIZE_EXCEEDED"
    APP_OUTPUT_NOT_A_FILE = "APP_OUTPUT_NOT_A_FILE"
    APP_OUTPUT_NAME_REFUSED = "APP_OUTPUT_NAME_REFUSED"
    APP_RUNTIME_MISMATCH = "APP_RUNTIME_MISMATCH"
    POST_COMPUTE_COMPUTED_FILE_NOT_FOUND = "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND"
    POST_COMPUTE_RESULT_FILE_NOT_FOUND = "POST_COMPUTE_RESULT_FILE_NOT_FOUND"
    POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED = "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED"
    POST_COMPUTE_DROPBOX_UPLOAD_FAILED = "POST_COMPUTE_DROPBOX_UPLOAD_FAILED"
    POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME = "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME"

    POST_COMPUTE_OUT_FOLDER_ZIP_FAILED = "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED"
    POST_COMPUTE_ENCRYPTION_FAILED = "POST_COMPUTE_ENCRYPTION_FAILED"
    POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING = "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING"
    POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY = "POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY"
    POST_COMPUTE_FAILED_UNKNOWN_ISSUE = "POST_COMPUTE_FAILED_UNKNOWN_ISSUE"
    APP_IMAGE_DOWNLOAD_FAILED = "APP_IMAGE_DOWNLOAD_FAILED"
    APP_IMAGE_REFUSED = "APP_IMAGE_REFUSED"
    PRE_COMPUTE_DATASET_DOWNLOAD_FAILED = "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"
    PRE_COMPUTE_INVALID_DATASET_CHECKSUM = "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"
    PRE_COMPUTE_DATASET_DECRYPTION_FAILED = "PRE_COMPUTE_DATASET_DECRYPTION_FAILED"
    PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED = "PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED"
    PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED = "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
    PRE_COMPUTE_INPUT_FILE_DECRYPTION_FAILED = "PRE_COMPUTE_INPUT_FILE_DECRYPTION_FAILED"
    PRE_COMPUTE_FAILED_UNKNOWN_ISSUE = "PRE_COMPUTE_FAILED_UNKNOWN_ISSUE"
    TEE_SESSION_GENERATION_FAILED = "TEE_SESSION_GENERATION_FAILED"
    TEE_SESSION_REFUSED = "TEE_SESSION_REFUSED"
    SANDBOX_FAILED = "SANDBOX_FAILED"
    NETWORK_REFUSED = "NETWORK_REFUSED"


class AppError(CloisterError):
    """The iApp or what its requester gave it is at fault: the task completes with ``error.txt`` as its result."""

    code = "app-failed"

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class TaskError(CloisterError):
    """The platform is at fault: the host is told the cause, and the task may be leased again.

    ``may_pass``: a part of the platform is away, and the same may work later.
    """

    code = "task-failed"

    def __init__(self, cause: Cause, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.cause = cause
        self.may_pass = may_pass
