"""How commands get to a TPM and answers come back: one exchange at a time, with a cap and a time limit."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Protocol

from cloister.errors import RemoteError, UnavailableError

DEVICE = Path("/dev/tpmrm0")
"""The kernel's resource manager: it keeps one program's sessions and keys from another's."""
MAX_ANSWER = 4096
"""Longest answer in bytes, as every driver and emulator has it."""
ANSWER_SECONDS = 30.0
"""A discrete TPM takes a second or two for a signature, more for a self-test that runs first."""


class Transceiver(Protocol):
    """A way to one TPM. Not safe to use from several threads."""

    def exchange(self, command: bytes) -> bytes:
        """Send one whole command and return the whole answer.

        Raises:
            UnavailableError: no answer in time, or the TPM is gone. RemoteError: an answer over the cap.
        """
        ...


class DeviceTransceiver:
    """Implements ``Transceiver`` on a character device of the kernel: one write is a command, one read its answer."""

    __slots__ = ("_handle", "_path", "_seconds")

    def __init__(self, path: Path = DEVICE, *, seconds: float = ANSWER_SECONDS) -> None:
        """Raises UnavailableError when the device does not open."""
        self._path = path
        self._seconds = seconds
        try:
            # Without O_NONBLOCK a write would wait inside the kernel for as long as the TPM likes.
            self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise UnavailableError(f"the TPM {path} does not open: {error.strerror}") from error

    def exchange(self, command: bytes) -> bytes:
        """Write, wait until there is something to read, read."""
        deadline = time.monotonic() + self._seconds
        try:
            os.write(self._handle, command)
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            while True:
                left = deadline - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    raise UnavailableError(f"the TPM {self._path} gave no answer in {self._seconds:g} s")
                try:
                    answer = os.read(self._handle, MAX_ANSWER + 1)
                except BlockingIOError:
                    time.sleep(0.01)
                    continue
                break
        except OSError as error:
            raise UnavailableError(f"the TPM {self._path} failed: {error.strerror}") from error
        if len(answer) > MAX_ANSWER:
            raise RemoteError(f"the TPM's answer is over the cap of {MAX_ANSWER} bytes", code="tpm-malformed")
        return answer

    def close(self) -> None:
        """Let go of the device."""
        os.close(self._handle)
