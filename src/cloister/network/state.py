"""The folder of a local network: who holds it, and its public description."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import urllib3

from cloister.errors import CloisterError, Conflict, UnavailableError
from cloister.protocol.networks import NetworkDescription
from cloister.sdk.home import load_description, network_folder
from cloister.sdk.receipts import FILE_NAME, ReferenceValues

LOCK_NAME = "up.lock"
READINESS_SECONDS = 5.0
READINESS_CAP = 64 * 1024


class NetworkState:
    """The state folder of one network, held by at most one process.

    The kernel drops the hold when the process dies, so a network that was killed -9 can be started again at once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = network_folder(name)
        self._lock: IO[str] | None = None

    def hold(self) -> None:
        """Take the folder.

        Raises:
            Conflict: another process has it.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (self.folder / LOCK_NAME).open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise Conflict(f"the network {self.name} is up already", hint=f"cloister down --name {self.name}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def clear(self) -> None:
        """Forget everything that the network ever was: keys, chain, content.

        Raises:
            Conflict: it runs.
        """
        self.hold()
        try:
            for entry in self.folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != LOCK_NAME:
                    entry.unlink()
        finally:
            self.release()

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def save_documents(self, description: NetworkDescription, values: ReferenceValues) -> None:
        """Write what clients on this machine need: where the network is, and what its evidence rests on."""
        for name, document in (("network.json", description.to_json()), (FILE_NAME, values.to_json())):
            temporary = self.folder / f"{name}.tmp"
            temporary.write_text(json.dumps(document, indent=1))
            temporary.replace(self.folder / name)

    def path(self, *parts: str) -> Path:
        """A path below the folder; the folders above it are made 0700."""
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


def running_process(name: str) -> int | None:
    """The process that holds a network's folder; None when nobody does."""
    path = network_folder(name) / LOCK_NAME
    with contextlib.suppress(FileNotFoundError), path.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = lock.read(32)
            return int(text) if text.isdecimal() else None
    return None


def readiness(origin: str) -> Mapping[str, str]:
    """Ask the services at ``origin`` how they are: part to ``ok`` or what is wrong.

    Raises:
        UnavailableError: nothing answers there.
    """
    # Not through `transport`: a part that is not ready answers 503, and its words are what we want.
    try:
        answer = urllib3.request(
            "GET", f"{origin}/-/ready", timeout=READINESS_SECONDS, retries=False, redirect=False, preload_content=False
        )
        parts = json.loads(answer.read(READINESS_CAP)).get("parts", {})
    except (urllib3.exceptions.HTTPError, ValueError, AttributeError) as error:
        raise UnavailableError(f"nothing answers at {origin}", hint="cloister up") from error
    return {str(name): str(state) for name, state in parts.items()}


def is_up(network: str) -> bool:
    """Whether a network, by name or URL, answers and is ready."""
    try:
        description = load_description(network)
        return all(state == "ok" for state in readiness(description.origin).values())
    except CloisterError:
        return False
