"""Enrolment of a TPM: its two keys, the proof that they share one TPM, and the certificates in its NV.

The endorsement key is made from the TPM's seed by the template that TCG fixed, so the authority knows it may only decrypt.
The attestation key signs nothing but what the TPM itself says. The authority certifies it after **credential activation**:
it encrypts a secret to the endorsement key under the attestation key's name, and the TPM gives the secret out only when
it holds both. All of it is made in software here (TPM2_MakeCredential needs no TPM).

Source: TCG TPM 2.0 Library, Part 1 (24, credential protection; 11.4.10, KDFa and KDFe; C.6.1, ECDH secret exchange) and Part
3; TCG EK Credential Profile 2.5, template L-2 and policy A; TCG Registry of Reserved TPM 2.0 Handles and Localities.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from cloister.enclave.attesters.tpm import AK_CERTIFICATE_INDEX, AK_HANDLE, EK_CERTIFICATE_INDEX
from cloister.enclave.attesters.tpm_commands import (
    EMPTY_PASSWORD,
    NULL_ALGORITHM,
    NV_PIECE,
    SHA256,
    Reader,
    TpmRefused,
    execute,
    malformed,
    sized,
)
from cloister.enclave.attesters.transceivers import ANSWER_SECONDS, MAX_ANSWER, Transceiver
from cloister.errors import RemoteError, UnavailableError, VerificationError

EK_HANDLE = 0x81010001
"""The endorsement key, persistent beside the attestation key."""

_OWNER, _NULL, _ENDORSEMENT, _PLATFORM = 0x40000001, 0x40000007, 0x4000000B, 0x4000000C
_EVICT_CONTROL, _NV_UNDEFINE, _NV_DEFINE, _CREATE_PRIMARY = 0x120, 0x122, 0x12A, 0x131
_NV_WRITE, _NV_WRITE_LOCK, _SHUTDOWN, _ACTIVATE_CREDENTIAL = 0x137, 0x138, 0x145, 0x147
_POLICY_SECRET, _FLUSH_CONTEXT, _START_SESSION, _CAPABILITY = 0x151, 0x165, 0x176, 0x17A
_NOT_THERE = 0x0B
"""TPM_RC_HANDLE, a format-1 code: its low six bits."""

_ECC, _AES, _CFB_MODE, _ECDSA, _P256 = 0x0023, 0x0006, 0x0043, 0x0018, 0x0003
_EK_ATTRIBUTES = 0x000300B2  # fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt
_AK_ATTRIBUTES = 0x00050472  # fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign
_EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""Policy A: whoever may use the endorsement hierarchy."""

_EK_HEAD = (
    struct.pack(">HHI", _ECC, SHA256, _EK_ATTRIBUTES)
    + sized(_EK_POLICY)
    + struct.pack(">HHHHHH", _AES, 128, _CFB_MODE, NULL_ALGORITHM, _P256, NULL_ALGORITHM)
)
_AK_HEAD = (
    struct.pack(">HHI", _ECC, SHA256, _AK_ATTRIBUTES)
    + sized(b"")
    + struct.pack(">HHHHH", NULL_ALGORITHM, _ECDSA, SHA256, _P256, NULL_ALGORITHM)
)
_NO_POINT = sized(bytes(32)) * 2

# TPMA_NV: PPWRITE, OWNERWRITE, WRITEDEFINE, PPREAD, OWNERREAD, AUTHREAD, NO_DA, PLATFORMCREATE.
_NV_READABLE = 1 << 13 | 1 << 17 | 1 << 18 | 1 << 25
_NV_PLATFORM = _NV_READABLE | 1 << 0 | 1 << 16 | 1 << 30
_NV_OWNER = _NV_READABLE | 1 << 1

_MANUFACTURER, _VENDOR_STRINGS, _FIRMWARE = 0x105, (0x106, 0x107, 0x108, 0x109), 0x10B
_PROPERTIES = 6


class Authority(Protocol):
    """Who certifies TPMs."""

    def certify_ek(self, key: ec.EllipticCurvePublicKey, model: TpmModel) -> bytes:
        """The certificate (DER) of an endorsement key that this authority saw being made."""
        ...

    def certify_ak(self, key: ec.EllipticCurvePublicKey, ek: ec.EllipticCurvePublicKey) -> bytes:
        """The certificate (DER) of an attestation key that was proven to lie in the TPM of ``ek``."""
        ...


class TpmModel:
    """What a TPM says it is, as the EK Credential Profile writes it (``id:`` and eight hex digits; a name)."""

    __slots__ = ("firmware", "manufacturer", "name")

    def __init__(self, manufacturer: int, name: str, firmware: int) -> None:
        self.manufacturer = f"id:{manufacturer:08X}"
        self.name = name
        self.firmware = f"id:{firmware:08X}"


class SocketTransceiver:
    """Implements ``Transceiver`` on a unix socket that takes raw commands, as swtpm's ``--server`` does."""

    def __init__(self, path: Path, *, seconds: float = ANSWER_SECONDS) -> None:
        """Raises UnavailableError when nobody listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise UnavailableError(f"no TPM answers at its socket: {error.strerror}") from error

    def exchange(self, command: bytes) -> bytes:
        """Send, then read as many bytes as the answer's head says."""
        try:
            self._socket.sendall(command)
            head = self._receive(10)
            size = int.from_bytes(head[2:6], "big")
            if not len(head) <= size <= MAX_ANSWER:
                raise RemoteError(f"the TPM's answer says it has {size} bytes", code="tpm-malformed")
            return head + self._receive(size - len(head))
        except TimeoutError as error:
            raise UnavailableError("the TPM gave no answer in time") from error
        except OSError as error:
            raise UnavailableError(f"the TPM's socket failed: {error.strerror}") from error

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self._socket.recv(length - len(data))
            if not piece:
                raise UnavailableError("the TPM hung up")
            data += piece
        return data

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def enrol(tpm: Transceiver, authority: Authority, *, entropy: Callable[[int], bytes] = secrets.token_bytes) -> None:
    """Make the keys, prove them, certify them, keep them and their certificates in the TPM.

    Every step may be run again: the keys come from the TPM's seed, what lies at a handle or an index is replaced. The
    hierarchies must have their empty passwords, as those of a new TPM have.

    Raises:
        VerificationError: the TPM does not prove that it holds both keys. TpmRefused, UnavailableError, RemoteError.
    """
    with _primary(tpm, _EK_HEAD) as (ek, ek_area), _primary(tpm, _AK_HEAD) as (ak, ak_area):
        ek_key, ak_key = _read_key(ek_area, _EK_HEAD), _read_key(ak_area, _AK_HEAD)
        secret = entropy(32)
        blob, sealed_seed = make_credential(ek_key, _name(ak_area), secret, entropy)
        if not hmac.compare_digest(_activate(tpm, ak, ek, blob, sealed_seed, entropy), secret):
            raise VerificationError("the TPM does not hold both keys: it opened another secret", code="tpm-activation")
        ek_certificate = authority.certify_ek(ek_key, _read_model(tpm))
        ak_certificate = authority.certify_ak(ak_key, ek_key)
        _persist(tpm, ek, EK_HANDLE)
        _persist(tpm, ak, AK_HANDLE)
    _write_nv(tpm, _PLATFORM, EK_CERTIFICATE_INDEX, _NV_PLATFORM, ek_certificate)
    _write_nv(tpm, _OWNER, AK_CERTIFICATE_INDEX, _NV_OWNER, ak_certificate)
    execute(tpm, _SHUTDOWN, parameters=struct.pack(">H", 0))  # TPM_SU_CLEAR: everything is in NV now


def make_credential(
    ek: ec.EllipticCurvePublicKey, name: bytes, secret: bytes, entropy: Callable[[int], bytes]
) -> tuple[bytes, bytes]:
    """TPM2_MakeCredential in software, for a P-256 endorsement key with AES-128-CFB and SHA-256.

    ``name``: of the key that the secret (at most 32 bytes) is bound to. Returns TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET,
    both without their size.
    """
    ephemeral = ec.derive_private_key(_scalar(entropy), ec.SECP256R1())
    shared = ephemeral.exchange(ec.ECDH(), ek)
    x, y = _coordinates(ephemeral.public_key())
    seed = _kdf_e(shared, b"IDENTITY", x, _coordinates(ek)[0])
    symmetric = _kdf_a(seed, b"STORAGE", name, 16)
    encryptor = Cipher(AES(symmetric), CFB(bytes(16))).encryptor()
    encrypted = encryptor.update(sized(secret)) + encryptor.finalize()
    integrity = hmac.digest(_kdf_a(seed, b"INTEGRITY", b"", 32), encrypted + name, "sha256")
    return sized(integrity) + encrypted, sized(x) + sized(y)


def _scalar(entropy: Callable[[int], bytes]) -> int:
    # 64 bits more than the order has: what the remainder prefers cannot be noticed (FIPS 186-5, A.2.1).
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return int.from_bytes(entropy(40), "big") % (order - 1) + 1


def _kdf_a(key: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """KDFa with HMAC-SHA-256, for at most 32 bytes: SP 800-108 in counter mode, one round."""
    message = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", length * 8)
    return hmac.digest(key, message, "sha256")[:length]


def _kdf_e(shared: bytes, label: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """KDFe with SHA-256, for 32 bytes: the one-step function of SP 800-56A."""
    return hashlib.sha256(struct.pack(">I", 1) + shared + label + b"\0" + party_u + party_v).digest()


def _coordinates(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    numbers = key.public_numbers()
    return numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")


def _name(area: bytes) -> bytes:
    """A key's name: algorithm and digest of its public area."""
    return struct.pack(">H", SHA256) + hashlib.sha256(area).digest()


def _read_key(area: bytes, head: bytes) -> ec.EllipticCurvePublicKey:
    """The point of a TPMT_PUBLIC that is otherwise exactly the template.

    Raises:
        VerificationError: a key of another kind, or no point of the curve.
    """
    reader = Reader(area)
    if reader.take(len(head)) != head:
        raise VerificationError("the TPM made another kind of key than it was asked for", code="tpm-key")
    x, y = int.from_bytes(reader.sized(), "big"), int.from_bytes(reader.sized(), "big")
    reader.finish()
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError as error:
        raise VerificationError("the TPM's key is no point of its curve", code="tpm-key") from error


@contextmanager
def _primary(tpm: Transceiver, head: bytes) -> Iterator[tuple[int, bytes]]:
    """CreatePrimary under the endorsement hierarchy: the handle and the public area; flushed at the end."""
    sensitive = sized(sized(b"") + sized(b""))
    parameters = sensitive + sized(head + _NO_POINT) + sized(b"") + struct.pack(">I", 0)
    reader = execute(
        tpm,
        _CREATE_PRIMARY,
        handles=(_ENDORSEMENT,),
        authorizations=(EMPTY_PASSWORD,),
        parameters=parameters,
        answer_handles=1,
    )
    handle, area = reader.number(4), reader.sized()
    try:
        yield handle, area
    finally:
        with suppress(RemoteError, UnavailableError):  # what went wrong before is what to tell
            execute(tpm, _FLUSH_CONTEXT, parameters=struct.pack(">I", handle))


def _activate(
    tpm: Transceiver, ak: int, ek: int, blob: bytes, sealed_seed: bytes, entropy: Callable[[int], bytes]
) -> bytes:
    """ActivateCredential, with the endorsement key's use allowed by its policy."""
    start = sized(entropy(16)) + sized(b"") + struct.pack(">BHH", 1, NULL_ALGORITHM, SHA256)  # 1: TPM_SE_POLICY
    session = execute(tpm, _START_SESSION, handles=(_NULL, _NULL), parameters=start).number(4)
    try:
        execute(
            tpm,
            _POLICY_SECRET,
            handles=(_ENDORSEMENT, session),
            authorizations=(EMPTY_PASSWORD,),
            parameters=sized(b"") * 3 + struct.pack(">i", 0),
        )
        reader = execute(
            tpm,
            _ACTIVATE_CREDENTIAL,
            handles=(ak, ek),
            # 1: continueSession, so that it is ours to flush whatever the answer is.
            authorizations=(EMPTY_PASSWORD, struct.pack(">IHBH", session, 0, 1, 0)),
            parameters=sized(blob) + sized(sealed_seed),
        )
        secret = reader.sized()
        reader.finish()
        return secret
    finally:
        with suppress(RemoteError, UnavailableError):
            execute(tpm, _FLUSH_CONTEXT, parameters=struct.pack(">I", session))


def _persist(tpm: Transceiver, key: int, handle: int) -> None:
    """EvictControl: put the key at a persistent handle in place of what lies there."""
    with _absent_is_fine():
        _evict(tpm, handle, handle)
    _evict(tpm, key, handle)


def _evict(tpm: Transceiver, key: int, handle: int) -> None:
    parameters = struct.pack(">I", handle)
    execute(tpm, _EVICT_CONTROL, handles=(_OWNER, key), authorizations=(EMPTY_PASSWORD,), parameters=parameters)


def _write_nv(tpm: Transceiver, hierarchy: int, index: int, attributes: int, content: bytes) -> None:
    """Define an index in place of what lies there, write it, lock it against being written again."""
    with _absent_is_fine():
        execute(tpm, _NV_UNDEFINE, handles=(hierarchy, index), authorizations=(EMPTY_PASSWORD,))
    public = struct.pack(">IHI", index, SHA256, attributes) + sized(b"") + struct.pack(">H", len(content))
    parameters = sized(b"") + sized(public)
    execute(tpm, _NV_DEFINE, handles=(hierarchy,), authorizations=(EMPTY_PASSWORD,), parameters=parameters)
    for offset in range(0, len(content), NV_PIECE):
        parameters = sized(content[offset : offset + NV_PIECE]) + struct.pack(">H", offset)
        execute(tpm, _NV_WRITE, handles=(hierarchy, index), authorizations=(EMPTY_PASSWORD,), parameters=parameters)
    execute(tpm, _NV_WRITE_LOCK, handles=(hierarchy, index), authorizations=(EMPTY_PASSWORD,))


@contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except TpmRefused as error:
        if error.response_code & 0x80 == 0 or error.response_code & 0x3F != _NOT_THERE:
            raise


def _read_model(tpm: Transceiver) -> TpmModel:
    """GetCapability of the vendor's properties. 6: TPM_CAP_TPM_PROPERTIES."""
    values: dict[int, int] = {}
    for first in (_MANUFACTURER, _FIRMWARE):
        reader = execute(tpm, _CAPABILITY, parameters=struct.pack(">III", _PROPERTIES, first, 5))
        reader.take(1)  # more data
        if reader.number(4) != _PROPERTIES:
            raise malformed("tells of another capability")
        for _ in range(min(reader.number(4), 5)):
            number = reader.number(4)
            values[number] = reader.number(4)
    text = b"".join(values.get(number, 0).to_bytes(4, "big") for number in _VENDOR_STRINGS)
    name = "".join(chr(byte) for byte in text if 0x20 <= byte < 0x7F).strip() or "unknown"
    return TpmModel(values.get(_MANUFACTURER, 0), name, values.get(_FIRMWARE, 0))
