"""The thread that renews collateral ahead of its end, and takes in the operator's bundle."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from cloister.attestation.bundle import MAX_BUNDLE, parse_bundle
from cloister.errors import CloisterError
from cloister.services.collateral.service import CollateralService
from cloister.services.collateral.settings import CollateralSettings

log = logging.getLogger("cloister.collateral")


class Refresher:
    """Start and stop from one thread."""

    def __init__(
        self, settings: CollateralSettings, service: CollateralService, *, jitter: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._service = service
        self._jitter = jitter
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: tuple[int, int] | None = None

    def start(self) -> None:
        """Take the bundle in, then begin to look after everything."""
        self._stopping.clear()
        self.take_bundle()
        self._thread = threading.Thread(target=self._run, name="collateral refresher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop. Safe to call twice, and without a start."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(15)
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.take_bundle()
                self._service.refresh()
            except CloisterError as error:
                log.warning("collateral is not renewed: %s", error.message)
            except Exception:
                log.exception("collateral is not renewed")
            # Jitter: replicas that were started together must not ask a vendor in step.
            self._stopping.wait(self._settings.tick_seconds * (0.5 + self._jitter()))

    def take_bundle(self) -> None:
        """Take the operator's file in when it is another one than before. A bad file is logged and changes nothing."""
        path = self._settings.bundle
        if path is None:
            return
        try:
            found = path.stat()
            version = (found.st_mtime_ns, found.st_size)
            if version == self._seen:
                return
            outcomes = self._service.take_bundle(parse_bundle(_read(path)), source=f"bundle {path.name}")
        except OSError as error:
            log.warning("the collateral bundle %s cannot be read: %s", path.name, error.strerror)
            return
        except CloisterError as error:
            log.warning("the collateral bundle %s is refused: %s", path.name, error.message)
            return
        self._seen = version
        refused = sum(each.result == "refused" for each in outcomes)
        log.info("took %d pieces of collateral from %s, refused %d", len(outcomes) - refused, path.name, refused)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BUNDLE + 1)
