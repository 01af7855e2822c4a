"""A DCAP authority of our own: everything Intel signs, under a test root, so that whole quotes can be made and broken.

What it makes is accepted by the verifiers (and by the library below them) exactly as Intel's is, once the relying party
trusts this root; nobody does unless a test says so. Keys follow from ``seed`` and signatures are deterministic, so the same
calls give the same bytes.

    authority = DcapAuthority.create(now=NOW)
    payload = authority.tdx_quote(report_data, mrtd=..., debug=False)          # version 4; version=5, body=15 for TD 1.5
    collateral = authority.collateral(EvidenceKind.TDX)                        # roots and one document
    appraise(Evidence(EvidenceKind.TDX, payload), collateral=collateral, now=NOW, ...)

One ``DcapAuthority`` is one Intel. A ``Machine`` is one platform: PPID, FMSPC, CPUSVN, PCESVN, its PCK certificate's
serial and CA. Quotes of both TEEs may be made for the same machine.

Knobs, each one abuse case:

=============================================  =======================================================================
forged QE identity (another signer)            ``collateral(..., Knobs(qe_identity_signer="forger"))``
QE that the identity does not name             ``tdx_quote(..., qe_mrsigner=b"\\x09" * 32)``
revoked PCK / PCK CA or TCB signer             ``Knobs(revoked=[machine.serial])`` / ``Knobs(root_revoked=[...])``
expired CRL                                    ``Knobs(crl_next_update=now - 1)``
expired TCB info, expired QE identity          ``Knobs(tcb_next_update=now - 1)``, ``Knobs(qe_next_update=now - 1)``
issue date in the future                       ``Knobs(tcb_issued=now + 1)``, ``qe_issued``, ``crl_issued``
level out of date, with the day                ``machine=authority.machine("old", pce_svn=5)`` (``LEVELS`` has the dates)
older evaluation number                        ``Knobs(evaluation=16)``
another root of the same name                  ``DcapAuthority.create(now=NOW, seed="impostor")``
debug enclave                                  ``tdx_quote(..., debug=True)``, ``sgx_quote(..., debug=True)``
=============================================  =======================================================================
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import EvidenceKind

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_SGX_OID = "1.2.840.113741.1.13.1"
DAY = 86400

QE_MRSIGNER = {EvidenceKind.SGX: b"\x51" * 32, EvidenceKind.TDX: b"\x52" * 32}
QE_PRODUCT = {EvidenceKind.SGX: 1, EvidenceKind.TDX: 2}
SEPT_VE_DISABLE = 1 << 28
TD_ATTRIBUTES = SEPT_VE_DISABLE.to_bytes(8, "little")


def spec(
    date: str, status: str, *, pce_svn: int, advisories: Sequence[str] = (), components: int = 2, tdx: int = 5
) -> dict[str, object]:
    """One level of a TCB info: sixteen SGX components, sixteen TDX components, PCESVN."""
    level: dict[str, object] = {
        "tcb": {
            "sgxtcbcomponents": [{"svn": components if i < 4 else 0} for i in range(16)],
            "pcesvn": pce_svn,
            "tdxtcbcomponents": [{"svn": tdx if i == 0 else 0} for i in range(16)],
        },
        "tcbDate": f"{date}T00:00:00Z",
        "tcbStatus": status,
    }
    if advisories:
        level["advisoryIDs"] = list(advisories)
    return level


LEVELS = (
    spec("2026-06-10", "UpToDate", pce_svn=13),
    spec("2026-02-11", "SWHardeningNeeded", pce_svn=12, advisories=["INTEL-SA-00615"]),
    spec("2025-11-12", "OutOfDate", pce_svn=11, advisories=["INTEL-SA-01036", "INTEL-SA-00615"]),
    spec("2024-03-13", "OutOfDateConfigurationNeeded", pce_svn=8, advisories=["INTEL-SA-00828"]),
    spec("2018-01-04", "Revoked", pce_svn=5),
)
"""Best first, as Intel lists them. A machine's ``pce_svn`` picks the level; below 5 there is none."""

QE_LEVELS = (
    {"tcb": {"isvsvn": 6}, "tcbDate": "2026-06-10T00:00:00Z", "tcbStatus": "UpToDate"},
    {
        "tcb": {"isvsvn": 4},
        "tcbDate": "2025-01-08T00:00:00Z",
        "tcbStatus": "OutOfDate",
        "advisoryIDs": ["INTEL-SA-00477"],
    },
)

MODULE_LEVELS = (
    {"tcb": {"isvsvn": 5}, "tcbDate": "2026-05-13T00:00:00Z", "tcbStatus": "UpToDate"},
    {
        "tcb": {"isvsvn": 2},
        "tcbDate": "2023-08-09T00:00:00Z",
        "tcbStatus": "OutOfDate",
        "advisoryIDs": ["INTEL-SA-01099"],
    },
)
"""Of TDX module 1: ``tee_tcb_svn`` has the module's version in byte 1 and its SVN in byte 0."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One platform and its PCK certificate. ``ca`` is ``platform`` or ``processor``."""

    name: str
    ppid: bytes
    serial: int
    fmspc: bytes = bytes.fromhex("b0c06f000000")
    cpu_svn: bytes = bytes([2] * 4 + [0] * 12)
    pce_svn: int = 13
    ca: str = "platform"
    not_after: int | None = None


@dataclass(frozen=True, slots=True)
class Knobs:
    """What one collateral differs in from sound one. Times are unix seconds; None takes the sound value."""

    evaluation: int = 17
    fmspc: bytes = bytes.fromhex("b0c06f000000")
    ca: str = "platform"
    levels: Sequence[dict[str, object]] = LEVELS
    qe_levels: Sequence[dict[str, object]] = QE_LEVELS
    module_levels: Sequence[dict[str, object]] = MODULE_LEVELS
    tcb_id: str | None = None
    qe_id: str | None = None
    qe_mrsigner: bytes | None = None
    tcb_signer: str = "signing"
    qe_identity_signer: str = "signing"
    crl_signer: str | None = None
    revoked: Sequence[int] = ()
    root_revoked: Sequence[int] = ()
    tcb_issued: int | None = None
    tcb_next_update: int | None = None
    qe_issued: int | None = None
    qe_next_update: int | None = None
    crl_issued: int | None = None
    crl_next_update: int | None = None
    root_crl_issued: int | None = None
    root_crl_next_update: int | None = None
    signing_not_after: int | None = None
    signing_not_before: int | None = None


SOUND = Knobs()


@dataclass(frozen=True, slots=True)
class DcapAuthority:
    """Root CA, PCK CAs, TCB signer and any number of machines. ``now``: unix seconds at which all of it is valid."""

    seed: str
    now: int
    root: bytes

    @classmethod
    def create(cls, *, now: int, seed: str = "cloister") -> DcapAuthority:
        """An authority whose keys follow from ``seed``. Another seed is another root of the same name."""
        bare = cls(seed, now, b"")
        certificate = bare._certificate("Intel SGX Root CA", "root", "Intel SGX Root CA", "root", 1, ca=True, path=1)
        return replace(bare, root=certificate.public_bytes(Encoding.DER))

    # What is quoted

    def machine(self, name: str = "one", **other: object) -> Machine:
        """A platform: PPID and serial follow from its name."""
        digest = hashlib.sha256(f"{self.seed}/machine/{name}".encode()).digest()
        return replace(Machine(name, digest[:16], int.from_bytes(digest[16:24], "big") | 1 << 40), **other)  # type: ignore[arg-type]

    def tdx_quote(
        self,
        report_data: bytes,
        *,
        mrtd: bytes = b"\x11" * 48,
        rtmrs: Sequence[bytes] = (b"\x20" * 48, b"\x21" * 48, b"\x22" * 48, b"\x23" * 48),
        debug: bool = False,
        attributes: bytes = TD_ATTRIBUTES,
        tee_tcb_svn: bytes = bytes([5, 1]) + bytes(14),
        tee_tcb_svn2: bytes | None = None,
        mr_signer_seam: bytes = bytes(48),
        mr_service_td: bytes = bytes(48),
        version: int = 4,
        body: int = 10,
        machine: Machine | None = None,
        **parts: object,
    ) -> bytes:
        """A TDX quote: version 4 (TD 1.0) or 5 (``body`` 10, 15, or 16: 15 in its extended form). ``parts`` as in ``assemble``."""
        if debug:
            attributes = bytes([attributes[0] | 1]) + attributes[1:]
        report = b"".join(
            (
                tee_tcb_svn,
                b"\x31" * 48,
                mr_signer_seam,
                bytes(8),
                attributes,
                bytes.fromhex("e702060000000000"),
                mrtd,
                b"\x32" * 48,
                b"\x33" * 48,
                b"\x34" * 48,
                *rtmrs,
                report_data,
            )
        )
        if body in (15, 16):
            report += (tee_tcb_svn2 or tee_tcb_svn) + mr_service_td
        if body == 16:
            report += b"\x01" + b"\x61" * 32 + b"\x62" * 48 + b"\x63" * 48 + bytes(52) + b"\x64" * 48 + bytes(8)
        if version == 5:
            report = struct.pack("<HI", {10: 2, 15: 3, 16: 4}[body], len(report)) + report
        return self.assemble(EvidenceKind.TDX, version, report, machine=machine, **parts)  # type: ignore[arg-type]

    def sgx_quote(
        self,
        report_data: bytes,
        *,
        mrenclave: bytes = b"\x41" * 32,
        mrsigner: bytes = b"\x42" * 32,
        isvprodid: int = 7,
        isvsvn: int = 3,
        debug: bool = False,
        version: int = 3,
        machine: Machine | None = None,
        **parts: object,
    ) -> bytes:
        """An SGX quote of version 3."""
        report = sgx_report(report_data, mrenclave, mrsigner, isvprodid, isvsvn, flags=0x07 if debug else 0x05)
        if version == 5:
            report = struct.pack("<HI", 1, len(report)) + report
        return self.assemble(EvidenceKind.SGX, version, report, machine=machine, **parts)  # type: ignore[arg-type]

    def assemble(
        self,
        kind: EvidenceKind,
        version: int,
        body: bytes,
        *,
        machine: Machine | None = None,
        key_type: int = 2,
        tee_type: int | None = None,
        vendor: bytes = _QE_VENDOR,
        attestation_key: str = "attestation",
        signed_by: str | None = None,
        qe_mrsigner: bytes | None = None,
        qe_product: int | None = None,
        qe_svn: int = 6,
        qe_flags: int = 0x15,
        qe_signer: str | None = None,
        qe_hashed_key: str | None = None,
        certification_type: int = 5,
        chain: bytes | None = None,
    ) -> bytes:
        """Sign a header and body as a QE does. Each keyword swaps one part of the chain of trust for another."""
        machine = machine or self.machine()
        tee = (0x81 if kind is EvidenceKind.TDX else 0) if tee_type is None else tee_type
        signed = struct.pack("<HHIHH", version, key_type, tee, 0, 0) + vendor + bytes(20) + body
        public = _point(self.key(attestation_key))
        authentication = bytes(range(32))
        bound = hashlib.sha256(_point(self.key(qe_hashed_key or attestation_key)) + authentication).digest() + bytes(32)
        qe_report = sgx_report(
            bound,
            b"\x55" * 32,
            QE_MRSIGNER[kind] if qe_mrsigner is None else qe_mrsigner,
            QE_PRODUCT[kind] if qe_product is None else qe_product,
            qe_svn,
            flags=qe_flags,
        )
        pem = self.pck_chain(machine) if chain is None else chain
        certification = pem if certification_type == 5 else bytes(404)
        inner = (
            qe_report
            + _sign(self.key(qe_signer or f"pck/{machine.name}"), qe_report)
            + struct.pack("<H", 32)
            + authentication
            + struct.pack("<HI", certification_type, len(certification))
            + certification
        )
        if version != 3:
            inner = struct.pack("<HI", 6, len(inner)) + inner
        data = _sign(self.key(signed_by or attestation_key), signed) + public + inner
        return signed + struct.pack("<I", len(data)) + data

    # What Intel publishes

    def collateral(self, kind: EvidenceKind, knobs: Knobs = SOUND) -> Collateral:
        """This root for both TEEs, and one document."""
        return Collateral(self.roots(), (self.document(kind, knobs),))

    def roots(self) -> tuple[tuple[EvidenceKind, bytes], ...]:
        return ((EvidenceKind.TDX, self.root), (EvidenceKind.SGX, self.root))

    def document(self, kind: EvidenceKind, knobs: Knobs = SOUND) -> Document:
        return Document(kind, "dcap", json.dumps(self.members(kind, knobs)).encode())

    def members(self, kind: EvidenceKind, knobs: Knobs = SOUND) -> dict[str, str]:
        """The members of a QuoteCollateralV3, for tests that break one of them."""
        tcb_info = self.tcb_info(kind, knobs)
        qe_identity = self.qe_identity(kind, knobs)
        ca = _CA_NAMES[knobs.ca]
        issued, until = self.now - DAY, self.now + 29 * DAY
        return {
            "pck_crl_issuer_chain": self._pem(self.pck_ca(knobs.ca)) + self._root_pem(),
            "root_ca_crl": self._crl(
                "Intel SGX Root CA",
                "root",
                knobs.root_revoked,
                knobs.root_crl_issued or issued,
                knobs.root_crl_next_update or until,
            ).hex(),
            "pck_crl": self._crl(
                ca,
                knobs.crl_signer or knobs.ca,
                knobs.revoked,
                knobs.crl_issued or issued,
                knobs.crl_next_update or until,
            ).hex(),
            "tcb_info_issuer_chain": self._signing_chain(knobs),
            "tcb_info": tcb_info,
            "tcb_info_signature": _sign(self.key(knobs.tcb_signer), tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": self._signing_chain(knobs),
            "qe_identity": qe_identity,
            "qe_identity_signature": _sign(self.key(knobs.qe_identity_signer), qe_identity.encode()).hex(),
        }

    def tcb_info(self, kind: EvidenceKind, knobs: Knobs = SOUND) -> str:
        levels = [dict(level) for level in knobs.levels]
        tdx = kind is EvidenceKind.TDX
        if not tdx:
            for level in levels:
                level["tcb"] = {k: v for k, v in level["tcb"].items() if k != "tdxtcbcomponents"}  # type: ignore[attr-defined]
        value: dict[str, object] = {
            "id": knobs.tcb_id or ("TDX" if tdx else "SGX"),
            "version": 3,
            "issueDate": _date(knobs.tcb_issued or self.now - DAY),
            "nextUpdate": _date(knobs.tcb_next_update or self.now + 29 * DAY),
            "fmspc": knobs.fmspc.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": knobs.evaluation,
        }
        if tdx:
            module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            value["tdxModule"] = module
            value["tdxModuleIdentities"] = [{"id": "TDX_01", **module, "tcbLevels": list(knobs.module_levels)}]
        value["tcbLevels"] = levels
        return json.dumps(value, separators=(",", ":"))

    def signed_tcb_info(self, text: str) -> dict[str, str]:
        """The two members of a document for a TCB info of any words."""
        return {"tcb_info": text, "tcb_info_signature": _sign(self.key("signing"), text.encode()).hex()}

    def qe_identity(self, kind: EvidenceKind, knobs: Knobs = SOUND) -> str:
        value = {
            "id": knobs.qe_id or ("TD_QE" if kind is EvidenceKind.TDX else "QE"),
            "version": 2,
            "issueDate": _date(knobs.qe_issued or self.now - DAY),
            "nextUpdate": _date(knobs.qe_next_update or self.now + 29 * DAY),
            "tcbEvaluationDataNumber": knobs.evaluation,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": (knobs.qe_mrsigner or QE_MRSIGNER[kind]).hex().upper(),
            "isvprodid": QE_PRODUCT[kind],
            "tcbLevels": list(knobs.qe_levels),
        }
        return json.dumps(value, separators=(",", ":"))

    # Certificates

    def key(self, name: str) -> ec.EllipticCurvePrivateKey:
        secret = int.from_bytes(hashlib.sha512(f"{self.seed}/{name}".encode()).digest(), "big") % (_ORDER - 1) + 1
        return ec.derive_private_key(secret, ec.SECP256R1())

    def pck_ca(self, ca: str) -> x509.Certificate:
        return self._certificate(_CA_NAMES[ca], ca, "Intel SGX Root CA", "root", serial_of(ca), ca=True, path=0)

    def pck_certificate(self, machine: Machine) -> x509.Certificate:
        return self._certificate(
            "Intel SGX PCK Certificate",
            f"pck/{machine.name}",
            _CA_NAMES[machine.ca],
            machine.ca,
            machine.serial,
            extension=sgx_extension(machine),
            not_after=machine.not_after,
        )

    def pck_chain(self, machine: Machine) -> bytes:
        """PEM: PCK certificate, its CA, the root; then the zero byte that Intel's QE writes."""
        text = self._pem(self.pck_certificate(machine)) + self._pem(self.pck_ca(machine.ca)) + self._root_pem()
        return text.encode() + b"\0"

    def _signing_chain(self, knobs: Knobs) -> str:
        certificate = self._certificate(
            "Intel SGX TCB Signing",
            "signing",
            "Intel SGX Root CA",
            "root",
            serial_of("signing"),
            not_before=knobs.signing_not_before,
            not_after=knobs.signing_not_after,
        )
        return self._pem(certificate) + self._root_pem()

    def _root_pem(self) -> str:
        return self._pem(x509.load_der_x509_certificate(self.root))

    @staticmethod
    def _pem(certificate: x509.Certificate) -> str:
        return certificate.public_bytes(Encoding.PEM).decode()

    def _certificate(
        self,
        name: str,
        key: str,
        issuer: str,
        issuer_key: str,
        serial: int,
        *,
        ca: bool = False,
        path: int | None = None,
        extension: bytes | None = None,
        not_before: int | None = None,
        not_after: int | None = None,
    ) -> x509.Certificate:
        public, signer = self.key(key).public_key(), self.key(issuer_key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(_moment(not_before or self.now - 400 * DAY))
            .not_valid_after(_moment(not_after or self.now + 3000 * DAY))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_usage(ca), critical=True)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=path), critical=True)
        )
        if extension is not None:
            oid = x509.ObjectIdentifier(_SGX_OID)
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, extension), critical=False)
        return builder.sign(signer, hashes.SHA256(), ecdsa_deterministic=True)

    def _crl(self, issuer: str, key: str, revoked: Sequence[int], issued: int, until: int) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer))
            .last_update(_moment(issued))
            .next_update(_moment(until))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key(key).public_key()), critical=False
            )
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_moment(issued))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key(key), hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


_CA_NAMES = {"platform": "Intel SGX PCK Platform CA", "processor": "Intel SGX PCK Processor CA"}


def serial_of(name: str) -> int:
    """The serial number of ``platform``, ``processor`` or ``signing``."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") | 1 << 40


def sgx_report(report_data: bytes, mrenclave: bytes, mrsigner: bytes, product: int, svn: int, *, flags: int) -> bytes:
    """An SGX report body, 384 bytes."""
    return b"".join(
        (
            bytes(16),
            bytes(32),
            struct.pack("<QQ", flags, 0xE7),
            mrenclave,
            bytes(32),
            mrsigner,
            bytes(96),
            struct.pack("<HH", product, svn),
            bytes(60),
            report_data,
        )
    )


def sgx_extension(machine: Machine) -> bytes:
    """The SGX extension of a PCK certificate (Intel, *PCK Certificate and CRL Profile*, 1.3.5), DER."""
    components = [_entry(f"2.{i + 1}", _integer(svn)) for i, svn in enumerate(machine.cpu_svn)]
    tcb = _sequence(*components, _entry("2.17", _integer(machine.pce_svn)), _entry("2.18", _octets(machine.cpu_svn)))
    entries = [
        _entry("1", _octets(machine.ppid)),
        _entry("2", tcb),
        _entry("3", _octets(bytes(2))),
        _entry("4", _octets(machine.fmspc)),
        _entry("5", b"\x0a\x01\x01"),
    ]
    if machine.ca == "platform":
        instance = hashlib.sha256(machine.ppid).digest()[:16]
        flags = [
            _entry(f"7.{i}", b"\x01\x01" + (b"\xff" if on else b"\x00")) for i, on in ((1, True), (2, True), (3, False))
        ]
        entries += [_entry("6", _octets(instance)), _entry("7", _sequence(*flags))]
    return _sequence(*entries)


def _entry(suffix: str, value: bytes) -> bytes:
    return _sequence(_oid(f"{_SGX_OID}.{suffix}"), value)


def _sequence(*items: bytes) -> bytes:
    return _tagged(0x30, b"".join(items))


def _octets(value: bytes) -> bytes:
    return _tagged(0x04, value)


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    out = bytearray([40 * first + second])
    for part in rest:
        digits = [part & 0x7F]
        while part := part >> 7:
            digits.append(part & 0x7F | 0x80)
        out += bytes(reversed(digits))
    return _tagged(0x06, bytes(out))


def _tagged(tag: int, value: bytes) -> bytes:
    size = len(value)
    length = (
        bytes([size])
        if size < 128
        else bytes([0x80 | (size.bit_length() + 7) // 8]) + size.to_bytes((size.bit_length() + 7) // 8, "big")
    )
    return bytes([tag]) + length + value


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=not ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(seconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _date(seconds: int) -> str:
    return _moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
