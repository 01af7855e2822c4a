"""Attester for confidential guests of Intel TDX and AMD SEV-SNP, through the kernel's configfs-tsm.

One folder is one request: 64 bytes are written to ``inblob``, the signed report is read from ``outblob``, certificates that
the host gave from ``auxblob``. ``generation`` counts writes, so that a report which somebody else asked for in between is
noticed.

Source: Linux Documentation/ABI/testing/configfs-tsm(-report); drivers tdx_guest and sev_guest.
"""

from __future__ import annotations

import errno
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.report import REPORT_DATA_SIZE
from cloister.attestation.snp_payload import (
    MAX_TABLE,
    REPORT_SIZE,
    build_snp_evidence,
    choose_certificates,
    parse_certificate_table,
)
from cloister.errors import LocalError, RemoteError, UnavailableError, quoted

REPORTS = Path("/sys/kernel/config/tsm/report")
PREPARED = "agent"
"""A request that the boot made for this program, because a user without rights may not make one."""
MAX_OUTBLOB = 32 * 1024
"""The kernel's own cap on a report, in bytes."""

_PROVIDERS = {"tdx_guest": EvidenceKind.TDX, "sev_guest": EvidenceKind.SNP}
_PRIVILEGE_LEVEL = b"0"
"""VMPL of the request: the most trusted part of the guest, which is this kernel when there is no other."""
_ATTEMPTS = 5
_PAUSE = 0.05
_NO_HARDWARE = frozenset({errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM})
_BUSY = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT})
_SNP_REPORT_DATA = 0x50
_TDX_HEADER, _TDX_BODY, _TDX_REPORT_DATA = 48, 584, 520


class ReportFiles(Protocol):
    """What is done to configfs. Every method raises OSError as the kernel does."""

    def make(self, folder: Path) -> None: ...

    def remove(self, folder: Path) -> None: ...

    def read(self, path: Path, cap: int) -> bytes:
        """At most ``cap`` bytes."""
        ...

    def write(self, path: Path, content: bytes) -> None: ...


class KernelFiles:
    """Implements ``ReportFiles`` on the file system."""

    def make(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)

    def remove(self, folder: Path) -> None:
        folder.rmdir()  # configfs takes a folder's attributes along

    def read(self, path: Path, cap: int) -> bytes:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = b""
            while len(content) < cap and (piece := os.read(handle, cap - len(content))):
                content += piece
            return content
        finally:
            os.close(handle)

    def write(self, path: Path, content: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, content)
        finally:
            # configfs takes a binary attribute when it is closed; whether it did shows in the generation.
            os.close(handle)


KERNEL_FILES = KernelFiles()


class TsmAttester:
    """Implements ``Attester``. Not safe to use from several threads."""

    __slots__ = ("_files", "_root", "kind")

    def __init__(self, kind: EvidenceKind, root: Path = REPORTS, files: ReportFiles = KERNEL_FILES) -> None:
        self.kind = kind
        self._root = root
        self._files = files

    def measure_app(self, digest: bytes) -> None:
        """Nothing: the digest stands in the report data, which this hardware signs with the measured guest."""

    def attest(self, report_data: bytes, *, now: int) -> Evidence:
        """Ask for a report. ``now`` is not used: freshness is the nonce's."""
        if len(report_data) != REPORT_DATA_SIZE:
            raise LocalError(f"report data has {len(report_data)} bytes instead of {REPORT_DATA_SIZE}")
        busy: OSError | None = None
        with _request(self._root, self._files) as folder:
            for attempt in range(_ATTEMPTS):
                if attempt:
                    time.sleep(_PAUSE * 2**attempt)
                try:
                    evidence = self._ask(folder, report_data)
                except OSError as error:
                    if error.errno not in _BUSY:
                        raise UnavailableError(
                            f"the platform's report is not to be had: {error.strerror}",
                            hint="the kernel's log tells what the firmware or the host's quoting service answered",
                        ) from error
                    busy = error
                    continue
                if evidence is not None:
                    return evidence
        reason = "somebody else writes to its request" if busy is None else str(busy.strerror)
        raise UnavailableError(f"the platform gives no report: {reason}")

    def _ask(self, folder: Path, report_data: bytes) -> Evidence | None:
        """One try. None when another program's request came between."""
        files = self._files
        before = _generation(files, folder)
        writes = 1
        if self.kind is EvidenceKind.SNP:
            files.write(folder / "privlevel", _PRIVILEGE_LEVEL)
            writes += 1
        files.write(folder / "inblob", report_data)
        report = files.read(folder / "outblob", MAX_OUTBLOB + 1)
        table = files.read(folder / "auxblob", MAX_TABLE + 1) if self.kind is EvidenceKind.SNP else b""
        if _generation(files, folder) != before + writes:
            return None
        if len(report) > MAX_OUTBLOB:
            raise RemoteError(f"the platform's report is over the cap of {MAX_OUTBLOB} bytes", code="tsm-report")
        if self.kind is EvidenceKind.SNP:
            return Evidence(self.kind, _snp_payload(report, table, report_data))
        return Evidence(self.kind, _tdx_quote(report, report_data))


def find_tsm(root: Path = REPORTS, files: ReportFiles = KERNEL_FILES) -> TsmAttester | None:
    """The attester of this guest's hardware, or None when it has none that signs reports.

    The folder alone says nothing: it is there as soon as the kernel's module is, on any machine. A user who may not make a
    request finds the one that the boot prepared; where the boot could make none, there is no hardware.

    Raises:
        RemoteError: hardware that has no verifier here. UnavailableError: configfs fails.
    """
    if not root.is_dir():
        return None
    try:
        with _request(root, files) as folder:
            provider = files.read(folder / "provider", 64).decode(errors="replace").strip()
    except UnavailableError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_HARDWARE:
            return None
        raise
    except OSError as error:
        raise UnavailableError(f"the kernel does not say whose reports it gives: {error.strerror}") from error
    kind = _PROVIDERS.get(provider)
    if kind is None:
        raise RemoteError(f"reports of {quoted(provider)} have no verifier", code="tsm-provider")
    return TsmAttester(kind, root, files)


@contextmanager
def _request(root: Path, files: ReportFiles) -> Iterator[Path]:
    """A request's folder: the prepared one, or one of our own that is removed again."""
    prepared = root / PREPARED
    if prepared.is_dir():
        yield prepared
        return
    folder = root / f"cloister-{secrets.token_hex(8)}"
    try:
        files.make(folder)
    except OSError as error:
        raise UnavailableError(f"the kernel takes no request for a report: {error.strerror}") from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            files.remove(folder)


def _generation(files: ReportFiles, folder: Path) -> int:
    text = files.read(folder / "generation", 32).strip()
    if not text.isdigit():
        raise RemoteError("the request's generation is not a number", code="tsm-report")
    return int(text)


def _snp_payload(report: bytes, table: bytes, report_data: bytes) -> bytes:
    if len(report) != REPORT_SIZE:
        raise RemoteError(f"the SEV-SNP report has {len(report)} bytes instead of {REPORT_SIZE}", code="tsm-report")
    _check_binding(report, _SNP_REPORT_DATA, report_data)
    return build_snp_evidence(report, choose_certificates(report, parse_certificate_table(table)))


def _tdx_quote(quote: bytes, report_data: bytes) -> bytes:
    """The quote without the zeros that some quoting services leave behind it; a quote says its own length.

    Source: Intel TDX DCAP Quoting Library API, appendix A (quote format, version 4 and 5).
    """
    version = int.from_bytes(quote[:2], "little")
    match version:
        case 4:
            body, body_size = _TDX_HEADER, _TDX_BODY
        case 5:  # type (2 bytes) and size (4) of the body come first
            body, body_size = _TDX_HEADER + 6, int.from_bytes(quote[50:54], "little")
        case _:
            raise RemoteError(f"the TDX quote has version {version} instead of 4 or 5", code="tsm-report")
    length_at = body + body_size
    end = length_at + 4 + int.from_bytes(quote[length_at : length_at + 4], "little")
    if len(quote) < length_at + 4 or len(quote) < end:
        raise RemoteError(f"the TDX quote is cut short at {len(quote)} bytes", code="tsm-report")
    _check_binding(quote, body + _TDX_REPORT_DATA, report_data)
    return quote if any(quote[end:]) else quote[:end]


def _check_binding(report: bytes, offset: int, report_data: bytes) -> None:
    if not hmac.compare_digest(report[offset : offset + REPORT_DATA_SIZE], report_data):
        raise RemoteError("the platform signed other report data than it was given", code="tsm-report")
