"""What a boot consisted of, in words for a person: read from an event log that was replayed against a quote.

Authority rests in the registers' values alone. A digest named here did go into its register, but that it was, say, the
kernel's is the word of the firmware's log, and a host can relabel events of one register without changing its value.
Compare with reference values; do not decide by a label. Only ``secure_boot`` is proven by itself: the digest covers the
variable's name and content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cloister.attestation.claims import Attribute
from cloister.attestation.tpm.events import (
    EV_EFI_BOOT_SERVICES_APPLICATION,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_EVENT_TAG,
    EV_IPL,
    Event,
)

INITRD_TAG = 0x8F3B22EC
"""Tag of an initramfs that Linux's EFI stub measured into PCR 9."""
COMMAND_LINE_TAG = 0x8F3B22ED
"""Tag of the load options, UTF-16LE, that Linux's EFI stub measured into PCR 9. Their text is not in the log."""

MAX_TEXT = 2048

_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
"""EFI_GLOBAL_VARIABLE's GUID, 8be4df61-93ca-11d2-aa0d-00e098032b8c, as it lies in memory."""
_SECURE_BOOT = "SecureBoot".encode("utf-16-le")
_GRUB_COMMAND_LINE = b"kernel_cmdline: "


def describe_boot(events: Iterable[Event]) -> dict[str, Attribute]:
    """Name what the log tells: ``kernel_authenticode`` (the last image that the firmware started), ``initrd_sha256``,
    ``command_line_sha256`` (hex), ``command_line`` (only where its text hashes to what was extended), ``secure_boot``.
    """
    found: dict[str, Attribute] = {}
    for event in events:
        match event.pcr, event.type:
            case 4, kind if kind == EV_EFI_BOOT_SERVICES_APPLICATION:
                found["kernel_authenticode"] = event.digest.hex()
            case 9, kind if kind == EV_EVENT_TAG:
                _describe_tagged(event, found)
            case 8, kind if kind == EV_IPL:
                _describe_grub(event, found)
            case 7, kind if kind == EV_EFI_VARIABLE_DRIVER_CONFIG:
                _describe_variable(event, found)
            case _:
                pass
    return found


def _describe_tagged(event: Event, found: dict[str, Attribute]) -> None:
    """TCG_PCClientTaggedEvent: a tag of four bytes, a length of four, data."""
    tag = int.from_bytes(event.data[:4], "little")
    if tag == INITRD_TAG:
        found["initrd_sha256"] = event.digest.hex()
    elif tag == COMMAND_LINE_TAG:
        found["command_line_sha256"] = event.digest.hex()


def _describe_grub(event: Event, found: dict[str, Attribute]) -> None:
    """GRUB measures the command line's text, and logs it behind a word and with a zero byte at the end."""
    if not event.data.startswith(_GRUB_COMMAND_LINE):
        return
    raw = event.data[len(_GRUB_COMMAND_LINE) :].rstrip(b"\0")
    if hashlib.sha256(raw).digest() == event.digest and len(raw) <= MAX_TEXT:
        found["command_line"] = raw.decode("utf-8", "replace")


def _describe_variable(event: Event, found: dict[str, Attribute]) -> None:
    """UEFI_VARIABLE_DATA: GUID, length of the name in characters, length of the data, name, data."""
    if hashlib.sha256(event.data).digest() != event.digest:
        return
    head = _GLOBAL_VARIABLE + (len(_SECURE_BOOT) // 2).to_bytes(8, "little")
    if event.data[:24] == head and event.data[32 : 32 + len(_SECURE_BOOT)] == _SECURE_BOOT:
        found["secure_boot"] = event.data[32 + len(_SECURE_BOOT) :] == b"\x01"
