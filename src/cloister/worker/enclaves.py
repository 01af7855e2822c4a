"""Enclaves ready for work: one waits warm, so that a task does not wait for an interpreter to start."""

from __future__ import annotations

import logging
import threading

from cloister.errors import CloisterError
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec, Runtime

log = logging.getLogger("cloister.worker")


class Enclaves:
    """Gives out started enclaves, each for one task. Thread-safe."""

    def __init__(self, runtime: Runtime, spec: EnclaveSpec, *, warm: bool = True) -> None:
        self._runtime = runtime
        self._spec = spec
        self._warm = warm
        self._lock = threading.Lock()
        self._waiting: EnclaveProcess | None = None
        self._filling = False
        self._closed = False

    def prepare(self) -> None:
        """Start the first one.

        Raises:
            ConfigurationError: this host cannot start enclaves; the hint says what to install.
        """
        process = self._runtime.launch(self._spec)
        with self._lock:
            self._waiting, process = process, self._waiting
        if process is not None:
            process.kill()

    def take(self) -> EnclaveProcess:
        """A started enclave of the caller's own.

        Raises:
            UnavailableError: none would start this time.
        """
        with self._lock:
            process, self._waiting = self._waiting, None
            refill = self._warm and not self._filling and not self._closed
            self._filling = self._filling or refill
        if refill:
            threading.Thread(target=self._refill, name="enclave-warmer", daemon=True).start()
        if process is not None and process.wait(0) is None:
            return process
        if process is not None:
            process.kill()  # it died while it waited
        return self._runtime.launch(self._spec)

    def close(self) -> None:
        """End the one that waits."""
        with self._lock:
            self._closed = True
            process, self._waiting = self._waiting, None
        if process is not None:
            process.kill()

    def _refill(self) -> None:
        process: EnclaveProcess | None = None
        try:
            process = self._runtime.launch(self._spec)
        except CloisterError as error:
            log.warning("no enclave could be kept warm: %s", error.message)
        except Exception:
            log.exception("no enclave could be kept warm")
        with self._lock:
            self._filling = False
            if process is not None and not self._closed and self._waiting is None:
                self._waiting, process = process, None
        if process is not None:
            process.kill()
