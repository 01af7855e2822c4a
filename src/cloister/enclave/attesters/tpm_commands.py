"""TPM 2.0 commands as bytes: only those that an enclave needs of its TPM.

Numbers are big-endian. A command is ``tag || size || code || handles || [authorizations] || parameters``, an answer
``tag || size || response code || [handles] || [size of parameters] || parameters || [authorizations]``. What a TPM
answers is parsed with exact lengths: it may be an emulator of the host's.

Source: TCG TPM 2.0 Library, Part 2 (structures) and Part 3 (commands), revision 1.59.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence

from cloister.enclave.attesters.transceivers import Transceiver
from cloister.errors import LocalError, RemoteError, UnavailableError

NO_SESSIONS, SESSIONS = 0x8001, 0x8002
SHA256, NULL_ALGORITHM = 0x000B, 0x0010
DIGEST_SIZE = 32
PASSWORD_SESSION = 0x40000009
EMPTY_PASSWORD = struct.pack(">IHBH", PASSWORD_SESSION, 0, 0, 0)
"""TPMS_AUTH_COMMAND: password session, no nonce, no attributes, the empty password."""
PCRS = 24
NV_PIECE = 512
"""Bytes of a certificate that are read at once: every TPM has buffers of that size."""
MAX_NV = 4096
"""Longest content of an NV index that is believed, in bytes."""

_NV_READ, _QUOTE, _NV_READ_PUBLIC, _PCR_READ, _PCR_EXTEND = 0x14E, 0x158, 0x169, 0x17E, 0x182
_BUSY = frozenset({0x908, 0x90A, 0x920, 0x922, 0x923})
"""YIELDED, TESTING, NV_RATE, RETRY, NV_UNAVAILABLE: the same command may succeed a little later."""
_BUSY_SECONDS = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5
_SELECT_SIZE = 3


class TpmRefused(RemoteError):
    """The TPM answered with an error; ``response_code`` is its TPM_RC."""

    code = "tpm-refused"

    def __init__(self, command: int, response_code: int) -> None:
        super().__init__(f"the TPM refused command 0x{command:03x} with response code 0x{response_code:03x}")
        self.response_code = response_code


class Reader:
    """A cursor over what a TPM answered."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        end = self._position + length
        if end > len(self._data):
            raise malformed("is cut short")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, width: int) -> int:
        """A big-endian number of ``width`` bytes."""
        return int.from_bytes(self.take(width), "big")

    def sized(self) -> bytes:
        """A TPM2B: two bytes of size, then the content."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._data) - self._position)

    def finish(self) -> None:
        """Nothing may be left."""
        if self._position != len(self._data):
            raise malformed("has bytes left over")


def malformed(what: str) -> RemoteError:
    """The error for an answer that is none."""
    return RemoteError(f"the TPM's answer {what}", code="tpm-malformed")


def sized(content: bytes) -> bytes:
    """Build a TPM2B."""
    return struct.pack(">H", len(content)) + content


def execute(
    transceiver: Transceiver,
    code: int,
    *,
    handles: Sequence[int] = (),
    authorizations: Sequence[bytes] = (),
    parameters: bytes = b"",
    answer_handles: int = 0,
) -> Reader:
    """Run one command and return its answer's handles and parameters. A busy TPM is asked again for up to 20 s.

    Raises:
        TpmRefused: a response code. UnavailableError: no answer, or busy for too long. RemoteError: no TPM's answer.
    """
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    if authorizations:
        area = b"".join(authorizations)
        body += struct.pack(">I", len(area)) + area
    tag = SESSIONS if authorizations else NO_SESSIONS
    command = struct.pack(">HII", tag, 10 + len(body) + len(parameters), code) + body + parameters
    deadline, pause = time.monotonic() + _BUSY_SECONDS, _FIRST_PAUSE
    while True:
        answer = transceiver.exchange(command)
        response_code = _response_code(answer)
        if response_code not in _BUSY:
            break
        if time.monotonic() + pause > deadline:
            raise UnavailableError(f"the TPM is busy (0x{response_code:03x}) for over {_BUSY_SECONDS:g} s")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    if response_code != 0:
        raise TpmRefused(code, response_code)
    return _parameters(answer, bool(authorizations), answer_handles)


def _response_code(answer: bytes) -> int:
    if len(answer) < 10:
        raise malformed(f"has {len(answer)} bytes")
    tag, size, response_code = struct.unpack_from(">HII", answer)
    if size != len(answer) or tag not in (NO_SESSIONS, SESSIONS):
        raise malformed("has another size than it says, or an unknown tag")
    return int(response_code)


def _parameters(answer: bytes, with_sessions: bool, answer_handles: int) -> Reader:
    if (answer[:2] == struct.pack(">H", SESSIONS)) != with_sessions:
        raise malformed("has the other tag")
    reader = Reader(answer[10:])
    if not with_sessions:
        return reader
    handles = reader.take(4 * answer_handles)
    return Reader(handles + reader.take(reader.number(4)))


def build_selection(indexes: Iterable[int]) -> bytes:
    """TPML_PCR_SELECTION of the SHA-256 bank, in canonical form: one bank, three octets, lowest PCR in the lowest bit."""
    bits = 0
    for index in indexes:
        if not 0 <= index < PCRS:
            raise LocalError(f"there is no PCR {index}")
        bits |= 1 << index
    return struct.pack(">IHB", 1, SHA256, _SELECT_SIZE) + bits.to_bytes(_SELECT_SIZE, "little")


def read_pcrs(transceiver: Transceiver, indexes: Sequence[int]) -> Mapping[int, bytes]:
    """PCR_Read: the 32 bytes of each of these registers of the SHA-256 bank. A TPM gives a few at a time."""
    values: dict[int, bytes] = {}
    left = sorted(set(indexes))
    while left:
        reader = execute(transceiver, _PCR_READ, parameters=build_selection(left))
        reader.number(4)  # the update counter
        given = _selected(reader)
        if not given or not set(given) <= set(left) or reader.number(4) != len(given):
            raise malformed("names other PCRs than were asked for: has it a SHA-256 bank?")
        for index in given:
            value = reader.sized()
            if len(value) != DIGEST_SIZE:
                raise malformed(f"gives {len(value)} bytes for PCR {index}")
            values[index] = value
        reader.finish()
        left = [index for index in left if index not in values]
    return values


def _selected(reader: Reader) -> list[int]:
    """The registers that a TPML_PCR_SELECTION of at most one bank names, in order."""
    indexes: list[int] = []
    for _ in range(min(reader.number(4), 1)):
        if reader.number(2) != SHA256:
            return []
        bits = int.from_bytes(reader.take(reader.number(1)), "little")
        indexes = [index for index in range(PCRS) if bits >> index & 1]
    return indexes


def extend_pcr(transceiver: Transceiver, index: int, digest: bytes) -> None:
    """PCR_Extend: the register becomes SHA-256(register || digest)."""
    if len(digest) != DIGEST_SIZE or not 0 <= index < PCRS:
        raise LocalError(f"PCR {index} is not extended with {len(digest)} bytes")
    parameters = struct.pack(">IH", 1, SHA256) + digest
    execute(transceiver, _PCR_EXTEND, handles=(index,), authorizations=(EMPTY_PASSWORD,), parameters=parameters)


def quote_pcrs(transceiver: Transceiver, key: int, qualifying: bytes, indexes: Iterable[int]) -> tuple[bytes, bytes]:
    """Quote with the key's own scheme. Returns TPMS_ATTEST without its size, and TPMT_SIGNATURE."""
    parameters = sized(qualifying) + struct.pack(">H", NULL_ALGORITHM) + build_selection(indexes)
    reader = execute(transceiver, _QUOTE, handles=(key,), authorizations=(EMPTY_PASSWORD,), parameters=parameters)
    return reader.sized(), reader.rest()


def read_nv(transceiver: Transceiver, index: int) -> bytes:
    """NV_ReadPublic and NV_Read: the whole content of an index that is readable with its own empty password.

    Raises:
        RemoteError: over 4 KiB, and what ``execute`` raises.
    """
    public = Reader(execute(transceiver, _NV_READ_PUBLIC, handles=(index,)).sized())
    public.take(4 + 2 + 4)  # index, name algorithm, attributes
    public.sized()  # policy
    size = public.number(2)
    public.finish()
    if size > MAX_NV:
        raise malformed(f"says that NV index 0x{index:08x} has {size} bytes; the cap is {MAX_NV}")
    content = b""
    while len(content) < size:
        length = min(NV_PIECE, size - len(content))
        reader = execute(
            transceiver,
            _NV_READ,
            handles=(index, index),
            authorizations=(EMPTY_PASSWORD,),
            parameters=struct.pack(">HH", length, len(content)),
        )
        piece = reader.sized()
        if len(piece) != length:
            raise malformed(f"gives {len(piece)} bytes of NV instead of {length}")
        content += piece
    return content
