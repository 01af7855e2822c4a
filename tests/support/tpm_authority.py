"""A TPM in software and the root that certifies it: evidence as a measured-boot machine gives it, with every part open to
change. Keys come from fixed seeds, so a failure repeats.

``TpmAuthority.create()`` makes both; ``.evidence(report_data, app_digest=..., boot=...)`` is what a verifier accepts with
``.collateral()``. ``.parts(...)`` gives the members before they are encoded, for tests that change one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.tpm.certificates import AK_PURPOSE, EK_PURPOSE, key_fingerprint
from cloister.attestation.tpm.events import (
    EV_EFI_ACTION,
    EV_EFI_BOOT_SERVICES_APPLICATION,
    EV_EFI_PLATFORM_FIRMWARE_BLOB2,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_EVENT_TAG,
    EV_NO_ACTION,
    EV_S_CRTM_VERSION,
    EV_SEPARATOR,
    SPEC_ID,
    STARTUP_LOCALITY,
    parse_event_log,
    replay,
)
from cloister.attestation.tpm.payload import (
    APP_PCR,
    BOOT_PCRS,
    QUOTED_PCRS,
    TpmPayload,
    build_app_pcr,
    build_boot_measurement,
    build_qualifying_data,
    build_tpm_payload,
)

NOW = 1_800_000_000
DAY = 86_400
APP_DIGEST = hashlib.sha256(b"app").digest()

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def elliptic_key(seed: str, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """The same key for the same seed."""
    return ec.derive_private_key(int.from_bytes(sha256(seed.encode()), "big") >> 8, curve or ec.SECP256R1())


# --- the boot and its log ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Boot:
    """What a machine boots. ``locality`` of TPM2_Startup; None leaves that record away."""

    firmware: bytes = b"firmware"
    kernel: bytes = b"kernel"
    initrd: bytes = b"initramfs"
    command_line: str = "console=ttyS0 panic=-1"
    secure_boot: bool = False
    locality: int | None = None

    def records(self) -> list[tuple[int, int, bytes, bytes]]:
        """(register, type, what is measured, what is logged) in the firmware's order."""
        variable = secure_boot_variable(self.secure_boot)
        line = self.command_line.encode("utf-16-le") + b"\0\0"
        return [
            (0, EV_S_CRTM_VERSION, b"v\0", b"v\0"),
            (0, EV_EFI_PLATFORM_FIRMWARE_BLOB2, self.firmware, b"\x08firmware" + bytes(16)),
            (7, EV_EFI_VARIABLE_DRIVER_CONFIG, variable, variable),
            *((pcr, EV_SEPARATOR, bytes(4), bytes(4)) for pcr in range(8)),
            (2, 0x80000004, b"option rom", b"path"),
            (
                4,
                EV_EFI_ACTION,
                b"Calling EFI Application from Boot Option",
                b"Calling EFI Application from Boot Option",
            ),
            (4, EV_EFI_BOOT_SERVICES_APPLICATION, self.kernel, bytes(32)),
            (9, EV_EVENT_TAG, line, tagged(0x8F3B22ED, b"LOADED_IMAGE::LoadOptions\0")),
            (9, EV_EVENT_TAG, self.initrd, tagged(0x8F3B22EC, b"Linux initrd\0")),
        ]

    def log(self) -> bytes:
        """binary_bios_measurements with SHA-1 and SHA-256 banks."""
        start = [] if self.locality is None else [startup_record(self.locality)]
        return log_head() + b"".join([*start, *(record(*item) for item in self.records())])


def secure_boot_variable(on: bool) -> bytes:
    name = "SecureBoot".encode("utf-16-le")
    guid = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
    return guid + struct.pack("<QQ", len(name) // 2, 1) + name + bytes([on])


def tagged(tag: int, data: bytes) -> bytes:
    return struct.pack("<II", tag, len(data)) + data


def log_head(algorithms: Iterable[tuple[int, int]] = ((4, 20), (11, 32)), vendor: bytes = b"") -> bytes:
    """TCG_PCR_EVENT that holds TCG_EfiSpecIDEvent."""
    listed = list(algorithms)
    body = SPEC_ID + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(listed))
    body += b"".join(struct.pack("<HH", *item) for item in listed) + bytes([len(vendor)]) + vendor
    return struct.pack("<II20sI", 0, EV_NO_ACTION, b"", len(body)) + body


def record(pcr: int, kind: int, measured: bytes, logged: bytes, *, digest: bytes | None = None) -> bytes:
    """TCG_PCR_EVENT2 with SHA-1 and SHA-256 of ``measured``, or ``digest`` for the latter."""
    sha1 = hashlib.sha1(measured, usedforsecurity=False).digest()
    digests = struct.pack("<IH20sH", 2, 4, sha1, 11) + (sha256(measured) if digest is None else digest)
    return struct.pack("<II", pcr, kind) + digests + struct.pack("<I", len(logged)) + logged


def startup_record(locality: int) -> bytes:
    return record(0, EV_NO_ACTION, b"", STARTUP_LOCALITY + bytes([locality]), digest=bytes(32))


def boot_pcrs(log: bytes) -> dict[int, bytes]:
    """What a TPM's registers hold after the boot that the log tells."""
    return replay(parse_event_log(log))


# --- quotes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attest:
    """TPMS_ATTEST with every field open. ``selection`` replaces the whole TPML_PCR_SELECTION."""

    extra_data: bytes
    pcrs: Mapping[int, bytes]
    magic: int = 0xFF544347
    type: int = 0x8018
    signer: bytes = b"\0\x0b" + bytes(32)
    clock: int = 12_345
    resets: int = 7
    restarts: int = 0
    safe: int = 1
    firmware: int = 0x2024_0125_0012_0000
    selection: bytes | None = None
    digest: bytes | None = None
    tail: bytes = b""

    def encode(self) -> bytes:
        digest = sha256(b"".join(self.pcrs[i] for i in sorted(self.pcrs))) if self.digest is None else self.digest
        return b"".join(
            (
                struct.pack(">IH", self.magic, self.type),
                sized(self.signer),
                sized(self.extra_data),
                struct.pack(">QIIBQ", self.clock, self.resets, self.restarts, self.safe, self.firmware),
                select_pcrs(self.pcrs) if self.selection is None else self.selection,
                sized(digest),
                self.tail,
            )
        )


def sized(data: bytes) -> bytes:
    """TPM2B."""
    return struct.pack(">H", len(data)) + data


def select_pcrs(pcrs: Iterable[int], *, bank: int = 0x000B, size: int = 3) -> bytes:
    """TPML_PCR_SELECTION of one bank."""
    bits = sum(1 << index for index in pcrs)
    return struct.pack(">IHB", 1, bank, size) + bits.to_bytes(max(size, 3), "little")[:size]


def sign_attest(key: Key, attest: bytes, *, pss: bool = False) -> bytes:
    """TPMT_SIGNATURE over SHA-256."""
    if isinstance(key, rsa.RSAPrivateKey):
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else padding.PKCS1v15()
        return struct.pack(">HH", 0x16 if pss else 0x14, 11) + sized(key.sign(attest, scheme, hashes.SHA256()))
    r, s = utils.decode_dss_signature(key.sign(attest, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return struct.pack(">HH", 0x18, 11) + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))


# --- certificates ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a certificate says its key is for; the defaults are an attestation key's."""

    purposes: tuple[ObjectIdentifier, ...] = (AK_PURPOSE,)
    sign: bool = True
    encipher: bool = False
    agree: bool = False
    authority: bool = False
    critical: tuple[str, ...] = ()


AK_USAGE = Usage()
EK_USAGE = Usage(purposes=(EK_PURPOSE,), sign=False, encipher=True)


@dataclass(frozen=True)
class TpmAuthority:
    """A root, one TPM's keys and their certificates."""

    root_key: Key
    ek: Key
    ak: Key
    root: bytes
    ek_certificate: bytes
    ak_certificate: bytes
    serials: Mapping[str, int] = field(default_factory=lambda: {"root": 1, "ek": 2, "ak": 3})

    @classmethod
    def create(
        cls,
        seed: str = "network",
        *,
        machine: str = "machine",
        ak: Key | None = None,
        ek: Key | None = None,
        root_key: Key | None = None,
    ) -> TpmAuthority:
        """``seed`` names the root, ``machine`` the TPM. P-256 keys unless others are given."""
        root_key = root_key or elliptic_key(f"root {seed}")
        ek, ak = ek or elliptic_key(f"ek {machine}"), ak or elliptic_key(f"ak {machine}")
        bare = cls(root_key, ek, ak, b"", b"", b"")
        root = bare.issue_root()
        bare = replace(bare, root=root)
        return replace(bare, ek_certificate=bare.issue_ek(), ak_certificate=bare.issue_ak())

    def issue_root(
        self, *, authority: bool = True, start: int = NOW - DAY, end: int = NOW + DAY, name: str = "root"
    ) -> bytes:
        usage = Usage(purposes=(), sign=False, authority=authority)
        return issue(self.root_key, name, self.root_key.public_key(), name, 1, usage, start, end)

    def issue_ek(
        self,
        usage: Usage = EK_USAGE,
        *,
        start: int = NOW - DAY,
        end: int = NOW + DAY,
        issuer: str = "root",
        key: object = None,
    ) -> bytes:
        public = key or self.ek.public_key()
        return issue(self.root_key, issuer, public, "tpm", self.serials["ek"], usage, start, end)

    def issue_ak(
        self,
        usage: Usage = AK_USAGE,
        *,
        start: int = NOW - DAY,
        end: int = NOW + DAY,
        bound_to: str | tuple[str, ...] | None = (),
        digest: hashes.HashAlgorithm | None = None,
        key: object = None,
    ) -> bytes:
        """``bound_to`` replaces the serialNumber of the subject; None leaves it away."""
        serials = (key_fingerprint(self.ek.public_key()).hex(),) if bound_to == () else bound_to
        names = (serials,) if isinstance(serials, str) else serials or ()
        public = key or self.ak.public_key()
        return issue(self.root_key, "root", public, "ak", self.serials["ak"], usage, start, end, names, digest)

    def collateral(self, *documents: bytes) -> Collateral:
        """This root for TPMs, and revocation lists when given."""
        crls = tuple(Document(EvidenceKind.TPM, "crl", document) for document in documents)
        return Collateral(((EvidenceKind.TPM, self.root),), crls)

    def revoke(self, *who: str, start: int = NOW - DAY, end: int = NOW + DAY, issuer: str = "root") -> bytes:
        """A revocation list (DER) that names these of ``ek`` and ``ak``."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(build_name(issuer))
        builder = builder.last_update(datetime.fromtimestamp(start, UTC)).next_update(datetime.fromtimestamp(end, UTC))
        for name in who:
            entry = x509.RevokedCertificateBuilder().serial_number(self.serials[name])
            builder = builder.add_revoked_certificate(entry.revocation_date(datetime.fromtimestamp(start, UTC)).build())
        return sign_built(builder, self.root_key)

    def measurement(self, boot: Boot | None = None) -> bytes:
        """The reference value of a boot."""
        return build_boot_measurement(boot_pcrs((boot or Boot()).log()))

    def parts(
        self,
        report_data: bytes,
        *,
        app_digest: bytes = APP_DIGEST,
        boot: Boot | None = None,
        pcrs: Mapping[int, bytes] | None = None,
        pss: bool = False,
        **attest: object,
    ) -> TpmPayload:
        """Honest evidence in members. ``pcrs`` replaces single registers before the quote; ``attest`` its fields."""
        log = (boot or Boot()).log()
        replayed = boot_pcrs(log)
        values = (
            {index: replayed[index] for index in BOOT_PCRS} | {APP_PCR: build_app_pcr(app_digest)} | dict(pcrs or {})
        )
        fields = {"extra_data": build_qualifying_data(report_data), "pcrs": values} | attest
        encoded = Attest(**fields).encode()
        signature = sign_attest(self.ak, encoded, pss=pss)
        return TpmPayload(
            self.ak_certificate, self.ek_certificate, encoded, signature, values, log, report_data, app_digest
        )

    def evidence(self, report_data: bytes, **options: object) -> Evidence:
        """Honest evidence, or as ``parts`` takes options."""
        return encode(self.parts(report_data, **options))


def encode(parts: TpmPayload) -> Evidence:
    """Evidence of these members."""
    members = {name: getattr(parts, name) for name in TpmPayload.__slots__}
    return Evidence(EvidenceKind.TPM, build_tpm_payload(**members))


def issue(
    key: Key,
    issuer: str,
    public: object,
    subject: str,
    serial: int,
    usage: Usage,
    start: int,
    end: int,
    serial_numbers: Iterable[str] = (),
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    """One certificate (DER)."""
    builder = (
        x509.CertificateBuilder().issuer_name(build_name(issuer)).subject_name(build_name(subject, serial_numbers))
    )
    builder = builder.public_key(public).serial_number(serial)
    builder = builder.not_valid_before(datetime.fromtimestamp(start, UTC)).not_valid_after(
        datetime.fromtimestamp(end, UTC)
    )
    builder = builder.add_extension(x509.BasicConstraints(usage.authority, None), critical=True)
    flags = (usage.sign, False, usage.encipher, False, usage.agree, usage.authority, usage.authority, False, False)
    builder = builder.add_extension(x509.KeyUsage(*flags), critical=True)
    if usage.purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage.purposes), critical=False)
    for oid in usage.critical:
        builder = builder.add_extension(x509.UnrecognizedExtension(ObjectIdentifier(oid), b"\x05\x00"), critical=True)
    return sign_built(builder, key, digest)


def sign_built(
    builder: x509.CertificateBuilder | x509.CertificateRevocationListBuilder,
    key: Key,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    options = {"ecdsa_deterministic": True} if isinstance(key, ec.EllipticCurvePrivateKey) else {}
    return builder.sign(key, digest or hashes.SHA256(), **options).public_bytes(Encoding.DER)


def build_name(common: str, serial_numbers: Iterable[str] = ()) -> x509.Name:
    serials = [x509.NameAttribute(NameOID.SERIAL_NUMBER, number) for number in serial_numbers]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common), *serials])


__all__ = ["APP_DIGEST", "NOW", "QUOTED_PCRS", "Attest", "Boot", "TpmAuthority", "Usage", "encode"]
