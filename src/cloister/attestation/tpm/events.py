"""The firmware's event log: what was extended into which register during the boot.

Source: TCG PC Client Platform Firmware Profile, sections 9 and 10. All numbers are little-endian. The log is nothing but a
claim: only the digests, in their order, are bound by a quote; types, data and the other banks' digests are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloister.attestation.tpm.payload import MAX_EVENT_LOG, PCR_COUNT, PCR_SIZE
from cloister.attestation.tpm.structures import ALG_SHA256, Reader, hash_size
from cloister.errors import DecodeError, TooLarge, VerificationError

MAX_EVENTS = 512
MAX_EVENT_DATA = 32 * 1024
MAX_ALGORITHMS = 8

EV_POST_CODE = 0x1
EV_NO_ACTION = 0x3
EV_SEPARATOR = 0x4
EV_EVENT_TAG = 0x6
EV_S_CRTM_VERSION = 0x8
EV_IPL = 0xD
EV_EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
EV_EFI_BOOT_SERVICES_APPLICATION = 0x80000003
EV_EFI_ACTION = 0x80000007
EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A

SPEC_ID = b"Spec ID Event03\0"
STARTUP_LOCALITY = b"StartupLocality\0"
_NO_PCR = 0xFFFFFFFF
_DRTM_PCRS = range(17, 23)
"""Registers that a dynamic launch resets; they start as ones."""
_CODE = "event-log-malformed"


@dataclass(frozen=True, slots=True)
class Event:
    """One record. ``pcr`` is None where an informative record names no register; ``digest`` is the SHA-256 bank's."""

    pcr: int | None
    type: int
    digest: bytes
    data: bytes


def parse_event_log(log: bytes) -> tuple[Event, ...]:
    """Read a whole crypto-agile log, its head (TCG_EfiSpecIDEvent) excluded from the answer.

    Raises:
        TooLarge: over 96 KiB. DecodeError: anything but a head and whole TCG_PCR_EVENT2 records, each with a SHA-256
            digest; more than 512 records.
    """
    if len(log) > MAX_EVENT_LOG:
        raise TooLarge(f"the event log has {len(log)} bytes; the cap is {MAX_EVENT_LOG}", code=_CODE)
    reader = Reader(log, _CODE, "the event log", "little")
    sizes = _parse_head(reader)
    events: list[Event] = []
    while reader.rest:
        if len(events) == MAX_EVENTS:
            raise DecodeError(f"the event log has more than {MAX_EVENTS} records", code=_CODE)
        events.append(_parse_event(reader, sizes))
    return tuple(events)


def replay(events: Iterable[Event]) -> dict[int, bytes]:
    """The value of every register (SHA-256 bank) after these events; one that nothing was extended into keeps its start.

    Raises:
        DecodeError: a startup locality that is unknown, stands twice or comes after the first event of PCR 0.
    """
    pcrs = {index: (b"\xff" if index in _DRTM_PCRS else b"\0") * PCR_SIZE for index in range(PCR_COUNT)}
    started = False
    for event in events:
        if event.type == EV_NO_ACTION:
            if event.data.startswith(STARTUP_LOCALITY):
                if started:
                    raise DecodeError("the event log tells the startup locality too late", code=_CODE)
                pcrs[0], started = _startup_value(event), True
            continue
        if event.pcr is None:
            raise DecodeError("an event is extended into no register", code=_CODE)
        started = started or event.pcr == 0
        pcrs[event.pcr] = hashlib.sha256(pcrs[event.pcr] + event.digest).digest()
    return pcrs


def verify_replay(events: Iterable[Event], pcrs: Mapping[int, bytes]) -> None:
    """Prove that the log accounts for every one of these registers.

    Raises:
        DecodeError: as ``replay``. VerificationError: ``event-log-mismatch`` names the first register that differs.
    """
    replayed = replay(events)
    for index, value in sorted(pcrs.items()):
        if replayed[index] != value:
            raise VerificationError(f"the event log does not account for pcr {index}", code="event-log-mismatch")


def _parse_head(reader: Reader) -> dict[int, int]:
    """The first record, in the form of TPM 1.2, tells which digests stand in the others: size by algorithm."""
    pcr, kind, digest, size = reader.number(4), reader.number(4), reader.take(20), reader.number(4)
    if (pcr, kind, digest) != (0, EV_NO_ACTION, bytes(20)):
        raise DecodeError("the event log does not begin with its own description", code=_CODE)
    body = Reader(reader.take(min(size, reader.rest + 1)), _CODE, "the event log's head", "little")
    if body.take(len(SPEC_ID)) != SPEC_ID:
        raise DecodeError("the event log is not of the crypto-agile form", code=_CODE)
    # Platform class, then version 2.0 of the specification, its errata and the width of an address in four-byte words.
    _class, minor, major, _errata, width = (body.number(4), *(body.number(1) for _ in range(4)))
    if (major, minor) != (2, 0) or width not in (1, 2):
        raise DecodeError(f"the event log is of version {major}.{minor}, width {width}", code=_CODE)
    if not 1 <= (count := body.number(4)) <= MAX_ALGORITHMS:
        raise DecodeError(f"the event log has {count} digests per event; at most {MAX_ALGORITHMS}", code=_CODE)
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm, length = body.number(2), body.number(2)
        if algorithm in sizes or hash_size(algorithm) != length:
            raise DecodeError(f"algorithm {algorithm:04x} of {length} bytes in the event log", code=_CODE)
        sizes[algorithm] = length
    if ALG_SHA256 not in sizes:
        raise DecodeError("the event log has no SHA-256 digests", code=_CODE)
    body.take(body.number(1))  # vendor's information
    body.end()
    return sizes


def _parse_event(reader: Reader, sizes: dict[int, int]) -> Event:
    """TCG_PCR_EVENT2."""
    pcr, kind, count = reader.number(4), reader.number(4), reader.number(4)
    nowhere = pcr == _NO_PCR and kind == EV_NO_ACTION
    if pcr >= PCR_COUNT and not nowhere:
        raise DecodeError(f"an event of the log names register {pcr}", code=_CODE)
    if count > len(sizes):
        raise DecodeError(f"an event of the log has {count} digests", code=_CODE)
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = reader.number(2)
        if algorithm in digests or algorithm not in sizes:
            raise DecodeError(f"an event of the log has a digest of algorithm {algorithm:04x}", code=_CODE)
        digests[algorithm] = reader.take(sizes[algorithm])
    if ALG_SHA256 not in digests:
        raise DecodeError("an event of the log has no SHA-256 digest", code=_CODE)
    if (size := reader.number(4)) > MAX_EVENT_DATA:
        raise DecodeError(f"an event of the log claims {size} bytes; at most {MAX_EVENT_DATA}", code=_CODE)
    return Event(None if nowhere else pcr, kind, digests[ALG_SHA256], reader.take(size))


def _startup_value(event: Event) -> bytes:
    """PCR 0 begins with the locality of TPM2_Startup: 3, or 4 after a hardware root of trust (section 10.4.5.3)."""
    locality = event.data[len(STARTUP_LOCALITY) :]
    if event.pcr != 0 or locality not in (b"\0", b"\3", b"\4"):
        raise DecodeError("the event log tells a startup locality that does not exist", code=_CODE)
    return bytes(PCR_SIZE - 1) + locality
