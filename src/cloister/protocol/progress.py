"""What an iApp says of its progress while it runs, on its way from the enclave to the requester.

The iApp writes lines of JSON (``parse_line``). The agent writes a message in one size whatever it says, seals it to the
requester's result key where the result is sealed, and signs it with the enclave's challenge key. Beside that stands the
SMS's authorization of worker, task and challenge, the same that a contribution carries, so a requester who knows the SMS
can tell an attested enclave's word from the host's invention while the task runs.

    update  = 0x01 || kind (0 plain, 1 sealed) || worker (20) || authorization (65) || signature (65) || content
    content = message (1024), or HPKE(result key, message, info = domain || task id || challenge || number (4, BE))
    message = canonical JSON {"fraction": millionths or null, "message": text}, filled up with spaces to 1024 bytes
    signed  = personal_sign of keccak256(domain || task id || number (4, BE) || kind || content)

The number counts from 1 in each enclave. A host can hold an update back or show it late; it can neither change one, nor
show it for another task, nor put it in another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloister.errors import DecodeError, InputError, VerificationError, quoted
from cloister.protocol.authorization import scheduler_authorization, verify_personal_signature
from cloister.protocol.codec import Address, Bytes32, canonical_json, check_keys, keccak256, parse_json
from cloister.protocol.signatures import message_digest, recover_address

DOMAIN: Final = b"cloister/progress/v1"
LINE_CAP: Final = 512
"""Longest line that an iApp writes, in bytes."""
MESSAGE_CAP: Final = 200
"""Longest text, in characters."""
MESSAGE_SIZE: Final = 1024
"""Size of every message, in bytes: 200 characters and their JSON fit."""
UPDATES_CAP: Final = 100
"""Most updates that leave one enclave."""
UPDATE_CAP: Final = 4096
"""Largest update, in bytes."""
_VERSION: Final = 1
_MILLION: Final = 1_000_000
_SIGNATURE: Final = 65
_HEAD: Final = 2 + 20 + 2 * _SIGNATURE


@dataclass(frozen=True, slots=True)
class ProgressMessage:
    """How far an iApp says it is. ``fraction`` is 0 to 1 in millionths' steps, None when it does not know; ``message`` is
    printable text.

    Raises:
        InputError: out of range, too long, or not printable.
    """

    fraction: float | None = None
    message: str = ""

    def __post_init__(self) -> None:
        if self.fraction is not None:
            if not 0 <= self.fraction <= 1:  # NaN is neither
                raise InputError(f"a fraction is 0 to 1, not {quoted(self.fraction)}")
            object.__setattr__(self, "fraction", round(self.fraction * _MILLION) / _MILLION)
        if len(self.message) > MESSAGE_CAP or not self.message.isprintable():
            raise InputError(f"a message is at most {MESSAGE_CAP} printable characters")

    @property
    def weight(self) -> int:
        """How many bytes of its own it says: the text in UTF-8, and four for a fraction."""
        return len(self.message.encode()) + (0 if self.fraction is None else 4)


def parse_line(line: bytes) -> ProgressMessage:
    """Read one line that an iApp wrote: ``{"fraction": 0.4, "message": "epoch 4 of 10"}``, either member may be missing.

    Raises:
        DecodeError, InputError, TooLarge: it is none.
    """
    given = check_keys("progress", parse_json(line, cap=LINE_CAP), required=(), optional=("fraction", "message"))
    fraction, message = given.get("fraction"), given.get("message", "")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float | None):
        raise DecodeError(f"progress: the fraction is no number: {quoted(fraction)}")
    if not isinstance(message, str):
        raise DecodeError("progress: the message is no text")
    return ProgressMessage(fraction, message)


def build_message(message: ProgressMessage) -> bytes:
    """Write a message in the one size that all have."""
    millionths = None if message.fraction is None else round(message.fraction * _MILLION)
    return canonical_json({"fraction": millionths, "message": message.message}).ljust(MESSAGE_SIZE)


def parse_message(raw: bytes) -> ProgressMessage:
    """Read what ``build_message`` writes.

    Raises:
        DecodeError, InputError: another size, or no message.
    """
    if len(raw) != MESSAGE_SIZE:
        raise DecodeError(f"a progress message has {MESSAGE_SIZE} bytes, not {len(raw)}")
    given = check_keys("progress", parse_json(raw), required=("fraction", "message"))
    millionths, message = given["fraction"], given["message"]
    if isinstance(millionths, bool) or not isinstance(millionths, int | None) or not isinstance(message, str):
        raise DecodeError("progress: fraction or message is of another type")
    if millionths is not None and not 0 <= millionths <= _MILLION:
        raise DecodeError(f"progress: the fraction is {quoted(millionths)} millionths")
    return ProgressMessage(None if millionths is None else millionths / _MILLION, message)


def progress_info(task_id: Bytes32, challenge: Address, number: int) -> bytes:
    """What a sealed message is bound to: HPKE's ``info``."""
    return DOMAIN + task_id.raw + challenge.raw + _number(number)


def progress_digest(task_id: Bytes32, number: int, *, sealed: bool, content: bytes) -> bytes:
    """The 32 bytes that the challenge key signs as a personal message."""
    return keccak256(DOMAIN + task_id.raw + _number(number) + bytes([sealed]) + content)


def _number(number: int) -> bytes:
    return number.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """One update as it travels. ``authorization`` and ``signature`` have 65 bytes; nothing is proven by being here."""

    worker: Address
    authorization: bytes
    signature: bytes
    sealed: bool
    content: bytes

    def __post_init__(self) -> None:
        if len(self.authorization) != _SIGNATURE or len(self.signature) != _SIGNATURE:
            raise InputError(f"an update's signatures have {_SIGNATURE} bytes")

    def challenge(self, task_id: Bytes32, number: int) -> Address:
        """Who signed it as update ``number`` of the task. ``verify_update`` says whether that is an enclave.

        Raises:
            VerificationError: nobody.
        """
        digest = progress_digest(task_id, number, sealed=self.sealed, content=self.content)
        return recover_address(message_digest(digest), self.signature)


def build_update(update: ProgressUpdate) -> bytes:
    """Write an update."""
    head = bytes([_VERSION, update.sealed]) + update.worker.raw + update.authorization + update.signature
    return head + update.content


def parse_update(raw: bytes) -> ProgressUpdate:
    """Read an update.

    Raises:
        DecodeError: too short, too long, or of another version or kind.
    """
    if not _HEAD < len(raw) <= UPDATE_CAP or raw[0] != _VERSION or raw[1] > 1:
        raise DecodeError(f"these {len(raw)} bytes are no progress update of version {_VERSION}")
    authorization, signature = raw[22 : 22 + _SIGNATURE], raw[22 + _SIGNATURE : _HEAD]
    return ProgressUpdate(Address.from_raw(raw[2:22]), authorization, signature, raw[1] == 1, raw[_HEAD:])


def verify_update(update: ProgressUpdate, task_id: Bytes32, number: int, sms: Address) -> Address:
    """Return the challenge of the enclave that sent this as update ``number`` of the task. ``sms`` vouches for enclaves:
    the hub's teebroker.

    Raises:
        VerificationError: it is of another task or number, was changed, or no attested enclave sent it.
    """
    if not 1 <= number <= UPDATES_CAP:
        raise VerificationError(f"updates count from 1 to {UPDATES_CAP}, not {quoted(number)}", code="wrong-number")
    challenge = update.challenge(task_id, number)
    verify_personal_signature(scheduler_authorization(update.worker, task_id, challenge), update.authorization, sms)
    return challenge
