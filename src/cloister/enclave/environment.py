"""What an iApp finds: its environment and command line (reference 6.1)."""

from __future__ import annotations

import hashlib
import shlex
import sys

from cloister.enclave.causes import AppError, Cause
from cloister.enclave.runtimes import Interpreter
from cloister.protocol.codec import ZERO_ADDRESS
from cloister.protocol.params import RequestParams
from cloister.protocol.releases import Release

_PLACES = {
    "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108  # the sandbox's own
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}
"""What an iApp has in the enclave's own file system; an image says these itself."""
INPUT_DIRECTORY = "/iexec_in"
OUTPUT_DIRECTORY = "/iexec_out"


def input_file_name(url: str) -> str:
    """The name of an input file in ``/iexec_in``: ``0x`` and the SHA-256 of its URL in hex."""
    return "0x" + hashlib.sha256(url.encode()).hexdigest()


def dataset_file_name(release: Release) -> str:
    """The name of the protected data in ``/iexec_in``: the dataset's address, lower case, as iExec's worker writes
    it.
    """
    return str(ZERO_ADDRESS if release.dataset is None else release.dataset.address).lower()


def build_environment(release: Release, params: RequestParams, interpreter: Interpreter) -> dict[str, str]:
    """The whole environment of the iApp. It holds the secrets that are meant for it and nothing of the agent's."""
    dataset = dataset_file_name(release)
    environment = {
        **(_PLACES if interpreter.root is None else {}),
        **interpreter.environment,
        "IEXEC_TASK_ID": str(release.task_id),
        "IEXEC_DEAL_ID": str(release.deal_id),
        "IEXEC_TASK_INDEX": str(release.index),
        "IEXEC_IN": INPUT_DIRECTORY,
        "IEXEC_OUT": OUTPUT_DIRECTORY,
        "IEXEC_BOT_SIZE": str(release.bot_size),
        "IEXEC_BOT_FIRST_INDEX": str(release.bot_first),
        "IEXEC_BOT_TASK_INDEX": str(release.index),
        "IEXEC_DATASET_ADDRESS": dataset,
        "IEXEC_DATASET_FILENAME": dataset,
        "IEXEC_INPUT_FILES_NUMBER": str(len(params.iexec_input_files)),
        "IEXEC_INPUT_FILES_FOLDER": INPUT_DIRECTORY,
    }
    for number, url in enumerate(params.iexec_input_files, start=1):
        environment[f"IEXEC_INPUT_FILE_NAME_{number}"] = input_file_name(url)
    return environment | _slice(release) | _secrets(release, params)


def _slice(release: Release) -> dict[str, str]:
    """The items of a bulk slice, those too of which there is no file."""
    if release.bulk is None:
        return {}
    names = {
        f"IEXEC_DATASET_{number}_FILENAME": item.address.lower() for number, item in enumerate(release.bulk, start=1)
    }
    return {"IEXEC_BULK_SLICE_SIZE": str(len(release.bulk)), **names}


def _secrets(release: Release, params: RequestParams) -> dict[str, str]:
    # The key of private input files is the agent's alone: the iApp gets the opened files.
    kept = None if params.cloister_input_key is None else str(params.cloister_input_key)
    given = {number: text for number, text in release.requester_secrets.items() if number != kept}
    secrets = {f"IEXEC_REQUESTER_SECRET_{number}": text for number, text in given.items()}
    if release.app_secret is not None:
        secrets["IEXEC_APP_DEVELOPER_SECRET"] = secrets["IEXEC_APP_DEVELOPER_SECRET_1"] = release.app_secret
    # A variable ends at a null byte; the rest of such a secret would be lost without a word.
    return {name: text for name, text in secrets.items() if "\0" not in text}


def build_command(interpreter: Interpreter, params: RequestParams) -> tuple[str, ...]:
    """The command line: the runtime with the entry point, and ``iexec_args`` cut as a shell would.

    Raises:
        AppError: there is none: an image names no program, and the requester gave no arguments.
    """
    command = (*interpreter.command, *(split_arguments(params) or interpreter.arguments))
    if not command:
        raise AppError(Cause.APP_COMPUTE_FAILED, "the image names no program, and the requester none either")
    return command


def split_arguments(params: RequestParams) -> list[str]:
    """Cut ``iexec_args`` into words. Quotes that do not close are taken as they are."""
    text = (params.iexec_args or "").replace("\0", "")
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
