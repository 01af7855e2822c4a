"""How a rehearsal ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloister.attestation.assurance import SIMULATED_WARNING
from cloister.errors import InputError, NotFound, quoted
from cloister.generator.rehearsal.settings import CATEGORY_SECONDS, Expectation

if TYPE_CHECKING:
    from cloister.attestation.receipt import VerifiedReceipt
    from cloister.protocol.bundles import Manifest
    from cloister.protocol.codec import Bytes32

_NEAR = 0.8
"""From this share of a limit on, a slower or fuller machine may be over it."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How a rehearsal ended. ``cause`` is None when the iApp did its work; else ``message`` says what went wrong.

    ``files`` are the result's, by name, without what the enclave adds. ``exit_code`` is None when the iApp never ran.
    ``seconds`` and ``peak_memory_bytes`` are what it took. ``progress`` is what it told of: a fraction (None: unknown)
    and a message. ``callback`` is the data for a callback contract. ``receipt`` is proven; None when there was no result.
    ``warnings``: what production might not like. ``unmet``: what ``mock/run.toml`` expected and did not come. ``timings``:
    seconds of each part of the rehearsal. ``result`` is the opened archive; ``digest`` is the bundle's.
    """

    cause: str | None
    message: str
    manifest: Manifest
    exit_code: int | None = None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    progress: tuple[tuple[float | None, str], ...] = ()
    callback: bytes = b""
    receipt: VerifiedReceipt | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()
    expected: Expectation | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    digest: Bytes32 | None = None
    bundle_bytes: int = 0
    result: bytes = field(default=b"", repr=False)

    notice = SIMULATED_WARNING
    """What must stand beside anything that is shown of a rehearsal."""

    @property
    def unmet(self) -> tuple[str, ...]:
        """What was expected and did not come; without an expectation, success is."""
        return (self.expected or Expectation()).unmet(self.cause, self.files)

    def read(self, name: str) -> bytes:
        """One file of the result. Raises NotFound, which names what there is."""
        if name not in self.files:
            there = ", ".join(self.files) or "nothing"
            hint = f"there is: {there}" if self.cause is None else f"{self.cause}: {self.message}"
            raise NotFound(f"the result holds no {quoted(name)}", hint=hint)
        return self.files[name]

    def json(self, name: str) -> Any:
        """One file of the result, parsed. Raises NotFound, InputError."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise InputError(f"{quoted(name)} is not JSON") from error


def find_warnings(run: Rehearsal, category: int) -> tuple[str, ...]:
    """What went well here and may not in production."""
    resources, found = run.manifest.resources, []
    if run.seconds > CATEGORY_SECONDS[category]:
        found.append(f"it ran {run.seconds:.0f} seconds; category {category} is for {CATEGORY_SECONDS[category]}")
    elif resources.seconds > CATEGORY_SECONDS[category] and run.cause == "APP_COMPUTE_TIMEOUT":
        found.append(f"category {category} is for {CATEGORY_SECONDS[category]} seconds, the manifest for more")
    if run.cause is None and run.seconds > _NEAR * resources.seconds:
        found.append(f"it ran {run.seconds:.1f} of the {resources.seconds} seconds that its manifest asks for")
    if run.cause is None and run.peak_memory_bytes > _NEAR * resources.memory_mib * (1 << 20):
        used = run.peak_memory_bytes / (1 << 20)
        found.append(f"it used {used:.0f} of the {resources.memory_mib} MiB that its manifest asks for")
    return tuple(found)
