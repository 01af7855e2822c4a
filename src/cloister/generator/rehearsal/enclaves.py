"""The enclaves of rehearsals: simulated ones on this machine, started ahead of their use.

This module imports little, so that an enclave starts while its user still imports the rest.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.attestation.collateral import simulated_collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.verifiers.simulated import build_platform_certificate, build_root, build_root_fingerprint
from cloister.enclave.attesters.simulated import build_platform
from cloister.enclave.measurement import measure_agent
from cloister.errors import UnavailableError
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec, Platform

_DAY = 86_400
_NODE_PLACES = ("/usr/bin/node", "/usr/local/bin/node")


class ThrowawayPlatform:
    """A simulated root, and one machine under it."""

    def __init__(self) -> None:
        now = int(time.time())
        root_key, key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        validity = {"not_before": now - 3600, "not_after": now + 30 * _DAY}
        root = build_root(root_key, name="rehearsal", serial=1, **validity)
        certificate = build_platform_certificate(
            root_key, root, key.public_key(), name="this machine", serial=2, **validity
        )
        self.collateral = simulated_collateral([root])
        self.material = build_platform(key.private_bytes_raw(), certificate)
        self._roots = frozenset({build_root_fingerprint(root)})
        self._launched: frozenset[bytes] = frozenset()

    def note_launch(self) -> None:
        """An agent is started now: it is trusted, whatever is saved over it while it waits."""
        self._launched |= {measure_agent()}

    def policy(self) -> EnclavePolicy:
        """Trust the agents that were started here, and the one that lies on disk now."""
        return EnclavePolicy(EvidenceKind.SIMULATED, self._roots, self._launched | {measure_agent()})


class Enclaves:
    """Starts enclaves on one throwaway platform, the next one while the last is at work. For one thread."""

    def __init__(self) -> None:
        self.platform = ThrowawayPlatform()
        self._runtime: BubblewrapRuntime | None = None
        self._starting: _Starting | None = None

    def start(self) -> None:
        """Begin to start one, where none is on its way."""
        if self._starting is None:
            self._starting = _Starting(self._launch)

    def take(self) -> EnclaveProcess:
        """One of the caller's own.

        Raises:
            ConfigurationError: this machine cannot start enclaves. UnavailableError: it did not start this time.
        """
        self.start()
        starting, self._starting = self._starting, None
        if starting is None:
            raise UnavailableError("no enclave was started")
        return starting.take()

    def close(self) -> None:
        """End the one that waits, and what starts them."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.drop()
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None

    def _launch(self) -> EnclaveProcess:
        if self._runtime is None:
            self._runtime = BubblewrapRuntime(node_prefix=find_node_prefix())
        self.platform.note_launch()
        return self._runtime.launch(EnclaveSpec(Platform(EvidenceKind.SIMULATED.value, self.platform.material)))


def find_node_prefix() -> Path | None:
    """The folder of the author's own Node, where it is none of the system's: a worker is told it by its operator."""
    found = shutil.which("node")
    if found is None or any(Path(place).is_file() for place in _NODE_PLACES):
        return None
    prefix = Path(found).resolve().parent.parent
    return prefix if (prefix / "bin" / "node").is_file() and prefix != Path("/") else None


class _Starting:
    """An enclave on its way, in a thread of its own."""

    def __init__(self, launch: Callable[[], EnclaveProcess]) -> None:
        self._process: EnclaveProcess | None = None
        self._error: BaseException | None = None
        self._launch = launch
        self._thread = threading.Thread(target=self._run, name="rehearsal-enclave", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._process = self._launch()
        except BaseException as error:  # noqa: BLE001  # whoever takes it hears of it
            self._error = error

    def take(self) -> EnclaveProcess:
        """The started enclave. Raises what starting it raised."""
        self._thread.join()
        if self._process is None:
            raise self._error or UnavailableError("no enclave was started")
        if self._process.wait(0) is None:
            return self._process
        self._process.kill()  # it died while it waited
        return self._launch()

    def drop(self) -> None:
        self._thread.join()
        if self._process is not None:
            self._process.kill()
