"""What an image measures: the values that its boot leaves in a TPM, which reference values are made of.

The image is booted once with a TPM that was never enrolled and holds no key, and tells its registers and event log
through a port of its own. The event log must replay to the registers, and what can be computed without a boot (initramfs
and command line, in PCR 9) must come out the same: so a value is never believed only because a machine said it.
"""

from __future__ import annotations

import hashlib
import re
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.tpm.events import Event, parse_event_log, verify_replay
from cloister.attestation.tpm.payload import BOOT_PCRS, MAX_EVENT_LOG, PCR_SIZE, build_boot_measurement
from cloister.errors import LocalError, RemoteError, UnavailableError, VerificationError
from cloister.protocol.channel import Frame, FrameParser
from cloister.worker.runtimes.runtime import EnclaveSpec, Platform
from cloister.worker.runtimes.vm import VmRuntime
from cloister.worker.vm.image import INITRAMFS, Image
from cloister.worker.vm.qemu import VmOptions
from cloister.worker.vm.swtpm import Swtpm

HELD = {
    0: "firmware",
    2: "drivers of devices (there are none)",
    4: "kernel",
    7: "secure boot's state and keys",
    9: "command line and initramfs",
}
"""What each of ``BOOT_PCRS`` stands for."""
_INITRD_ARGUMENT = " initrd=initrd"
"""The firmware's loader says to the kernel's stub where the initramfs is."""
_REPORT_SECONDS = 30.0
_PCR = re.compile(r"[0-9a-f]{64}")
_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class BootMeasurement:
    """What one boot left. ``measurement`` (32 bytes) names it; ``log`` is the event log as the kernel gives it; ``seconds``
    passed until the agent was ready.
    """

    measurement: bytes
    pcrs: Mapping[int, bytes]
    events: tuple[Event, ...]
    log: bytes
    kernel: str
    network: tuple[str, ...]
    seconds: float


def measure_image(image: Image, options: VmOptions = VmOptions()) -> BootMeasurement:  # noqa: B008  frozen
    """Boot an image once and read what was measured.

    Raises:
        ConfigurationError, UnavailableError: it cannot be booted here. VerificationError: log, registers and image do not
            agree. RemoteError: the machine's report has another form.
    """
    with tempfile.TemporaryDirectory(prefix="cloister-measure-") as folder:
        state = Path(folder)
        Swtpm.start_in_place(state).stop()  # a TPM fresh from the factory
        runtime = VmRuntime(image, state, options)
        started = time.monotonic()
        try:
            process, port = runtime.boot(EnclaveSpec(Platform(EvidenceKind.TPM.value)), report=True)
            seconds = time.monotonic() - started
            try:
                if port is None:
                    raise LocalError("the machine has no port for its report")
                with port:
                    return read_boot(image, port, seconds)
            finally:
                process.kill()
        finally:
            runtime.close()


def read_boot(image: Image, port: socket.socket, seconds: float) -> BootMeasurement:
    """Read the report of a machine that was booted with a port for it, and check it against its image.

    Raises:
        UnavailableError: there is no report. VerificationError: log, registers and image do not agree. RemoteError: the
            report has another form.
    """
    return verify_boot(image, _read_report(port), seconds)


def expected_pcr9(image: Image) -> bytes:
    """PCR 9 without a boot: the kernel's stub extends the command line, then the initramfs."""
    command_line = f"{image.manifest.command_line}{_INITRD_ARGUMENT}\0".encode("utf-16-le")
    register = bytes(PCR_SIZE)
    for digest in (hashlib.sha256(command_line).digest(), bytes.fromhex(image.manifest.outputs[INITRAMFS])):
        register = hashlib.sha256(register + digest).digest()
    return register


def _read_report(port: socket.socket) -> Frame:
    parser, deadline = FrameParser(), time.monotonic() + _REPORT_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        port.settimeout(left)
        try:
            data = port.recv(_READ)
        except TimeoutError:
            break
        except ConnectionError:
            data = b""
        if not data:
            raise UnavailableError("the machine ended without a report of its boot")
        if frames := parser.feed(data):
            return frames[0]
    raise UnavailableError(f"the machine gave no report of its boot in {_REPORT_SECONDS:g} s")


def verify_boot(image: Image, report: Frame, seconds: float) -> BootMeasurement:
    """Check a machine's report of its boot against the image that was booted.

    Raises:
        VerificationError, DecodeError: log, registers and image do not agree. RemoteError: another form.
    """
    pcrs = _parse_pcrs(report)
    if len(report.body) > MAX_EVENT_LOG:
        raise RemoteError(f"the boot's event log has more than {MAX_EVENT_LOG} bytes")
    events = parse_event_log(report.body)
    verify_replay(events, {index: pcrs[index] for index in BOOT_PCRS})
    if pcrs[9] != expected_pcr9(image):
        raise VerificationError(
            "PCR 9 is not what this image's initramfs and command line give",
            hint="another firmware may load them in another way: build the image again",
        )
    match report.header:
        case {"kernel": str(kernel), "network": [*network]} if all(isinstance(name, str) for name in network):
            measurement = build_boot_measurement(pcrs)
            return BootMeasurement(measurement, pcrs, events, report.body, kernel, tuple(network), seconds)
        case _:
            raise RemoteError("the machine's report of its boot has another form")


def _parse_pcrs(report: Frame) -> dict[int, bytes]:
    match report:
        case Frame("boot", {"pcrs": dict(found)}):
            pcrs = {}
            for index in range(16):
                text = found.get(str(index))
                if not isinstance(text, str) or not _PCR.fullmatch(text):
                    raise RemoteError(f"the machine's report has no value of PCR {index}")
                pcrs[index] = bytes.fromhex(text)
            return pcrs
        case _:
            raise RemoteError("the machine's report of its boot has another form")
