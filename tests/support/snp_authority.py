"""AMD in software: root, intermediates, chip keys and firmware that signs SEV-SNP reports, of the vendor's exact form.

What the real chain has is the same here, names included, except who holds the keys; so only the pinned root tells the two
apart. Keys come from fixed seeds: a failure repeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.support.rsa_keys import rsa_key

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.snp_payload import build_snp_evidence

NOT_BEFORE = 1_577_836_800  # 2020
NOT_AFTER = 2_493_072_000  # 2049
MEASUREMENT = hashlib.sha384(b"guest").digest()
POLICY = 0x3_0000
"""Reserved bit and SMT; no debug, no migration."""
DEBUG = 1 << 19
MIGRATION = 1 << 18
NO_AGENT = b"\xff" * 32

ARC = "1.3.6.1.4.1.3704.1"
_SPL = {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 8, "fmc": 9}
_PSS = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)


@dataclass(frozen=True, slots=True)
class _Line:
    """What differs between products."""

    cpu: tuple[int, int, int]
    tcb: Mapping[str, int]
    places: Mapping[str, int]
    chip_size: int
    struct_version: int


_CLASSIC = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_LINES = {
    "Milan": _Line((0x19, 0x01, 1), {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}, _CLASSIC, 64, 0),
    "Genoa": _Line((0x19, 0x11, 1), {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}, _CLASSIC, 64, 0),
    "Turin": _Line(
        (0x1A, 0x02, 1),
        {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 4, "microcode": 83},
        {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
        8,
        1,
    ),
}


@dataclass(slots=True)
class SnpAuthority:
    """One vendor for one product. ``key`` names its root's key and ``issuer_key`` its intermediate's in ``rsa_keys``."""

    product: str = "Milan"
    key: str = "root"
    issuer_key: str = "issuer"
    revoked: set[int] = field(default_factory=set)

    @classmethod
    def create(cls, product: str = "Milan", *, stranger: bool = False) -> SnpAuthority:
        """``stranger``: an impostor, whose root has the same name and another key."""
        return cls(product, "stranger" if stranger else "root")

    # certificates

    @property
    def ark(self) -> bytes:
        """The root, DER."""
        return _authority_certificate(self.product, self.key, self.issuer_key, f"ARK-{self.product}", 0x1_0000)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the root, as a policy names it."""
        return hashlib.sha256(self.ark).digest()

    @property
    def ask(self) -> bytes:
        """The intermediate that signs VCEKs, DER."""
        return _authority_certificate(self.product, self.key, self.issuer_key, f"SEV-{self.product}", 0x1_0001)

    @property
    def asvk(self) -> bytes:
        """The intermediate that signs VLEKs, DER."""
        return _authority_certificate(self.product, self.key, self.issuer_key, f"SEV-VLEK-{self.product}", 0x1_0002)

    def certificate(
        self,
        subject: str,
        issuer: str,
        *,
        signer: str | None = None,
        public: CertificateIssuerPublicKeyTypes | None = None,
        serial: int = 1,
        not_before: int = NOT_BEFORE,
        not_after: int = NOT_AFTER,
        authority: bool = True,
        signs_lists: bool | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
        critical: bool = False,
        pss: padding.PSS | padding.PKCS1v15 = _PSS,
    ) -> bytes:
        """Any certificate (DER). ``signer``: the key's name, the root's unless said otherwise; ``public``: whose
        certificate it is, the signer's own when left out.
        """
        key = rsa_key(signer or self.key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(public or key.public_key())
            .serial_number(serial)
            .not_valid_before(datetime.fromtimestamp(not_before, UTC))
            .not_valid_after(datetime.fromtimestamp(not_after, UTC))
        )
        if authority:
            lists = subject == issuer if signs_lists is None else signs_lists
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            builder = builder.add_extension(_usage(lists=lists), critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(key, SHA384(), rsa_padding=pss).public_bytes(Encoding.DER)

    def leaf(
        self,
        *,
        chip: str = "chip",
        tcb: Mapping[str, int] | None = None,
        signing_key: str = "vcek",
        provider: str = "provider",
        product_name: str | None = None,
        without: Sequence[str] = (),
        replace: Mapping[str, bytes] | None = None,
        **certificate: object,
    ) -> bytes:
        """The certificate (DER) of a chip's or a provider's key at one firmware level. ``without`` and ``replace`` name
        AMD's extensions by the end of their object identifier, as ``3.8``.
        """
        values = {
            "1": _der_int(self._line.struct_version),
            "2": _ia5(product_name or f"{self.product}-B0"),
            **{f"3.{_SPL[name]}": _der_int(number) for name, number in self._levels(tcb).items()},
        }
        if signing_key == "vcek":
            values["4"] = self.chip_id(chip)[: self._line.chip_size]
        else:
            values["5"] = _ia5(provider)
        values |= replace or {}
        extensions = [
            x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{ARC}.{end}"), value)
            for end, value in values.items()
            if end not in without
        ]
        issuer = f"SEV-{self.product}" if signing_key == "vcek" else f"SEV-VLEK-{self.product}"
        options: dict[str, object] = {
            "signer": self.issuer_key,
            "public": self.signing_key(chip, tcb, signing_key).public_key(),
            "authority": False,
            "subject": f"SEV-{signing_key.upper()}",
            "issuer": issuer,
            "extensions": extensions,
        }
        return self.certificate(**(options | certificate))  # type: ignore[arg-type]

    def chain(
        self, *, signing_key: str = "vcek", chip: str = "chip", tcb: Mapping[str, int] | None = None
    ) -> list[bytes]:
        """Leaf and intermediate, as evidence carries them."""
        intermediate = self.ask if signing_key == "vcek" else self.asvk
        return [self.leaf(chip=chip, tcb=tcb, signing_key=signing_key), intermediate]

    # collateral

    def revoke(self, *serials: int) -> None:
        """Put intermediates on the list; both, when none is named."""
        self.revoked.update(serials or (0x1_0001, 0x1_0002))

    def crl(
        self,
        *,
        this_update: int = NOT_BEFORE,
        next_update: int = NOT_AFTER,
        signer: str | None = None,
        issuer: str | None = None,
        critical: bool = False,
        distribution: x509.IssuingDistributionPoint | None = None,
    ) -> bytes:
        """The root's revocation list (DER)."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer or f"ARK-{self.product}"))
            .last_update(datetime.fromtimestamp(this_update, UTC))
            .next_update(datetime.fromtimestamp(next_update, UTC))
            .add_extension(x509.CRLNumber(7), critical=critical)
        )
        if distribution:
            builder = builder.add_extension(distribution, critical=True)
        for serial in sorted(self.revoked):
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(
                entry.revocation_date(datetime.fromtimestamp(NOT_BEFORE, UTC)).build()
            )
        key: RSAPrivateKey = rsa_key(signer or self.key)
        return builder.sign(key, SHA384(), rsa_padding=_PSS).public_bytes(Encoding.DER)

    def collateral(self, *, crls: Sequence[bytes] | None = None, certificates: Sequence[bytes] = ()) -> Collateral:
        """Trust in this root; with its revocation list of now, unless other lists are given."""
        lists = [self.crl()] if crls is None else crls
        documents = [Document(EvidenceKind.SNP, "crl", item) for item in lists]
        documents += [Document(EvidenceKind.SNP, "certificate", item) for item in certificates]
        return Collateral(((EvidenceKind.SNP, self.ark),), tuple(documents))

    # reports

    def chip_id(self, chip: str = "chip") -> bytes:
        """CHIP_ID of a chip, 64 bytes."""
        return hashlib.sha512(chip.encode()).digest()[: self._line.chip_size].ljust(64, b"\x00")

    def signing_key(
        self, chip: str = "chip", tcb: Mapping[str, int] | None = None, signing_key: str = "vcek"
    ) -> ec.EllipticCurvePrivateKey:
        """The key of a chip, or of a provider, at one firmware level."""
        owner = chip if signing_key == "vcek" else "provider"
        seed = f"{self.product}/{signing_key}/{owner}/{sorted(self._levels(tcb).items())}"
        return ec.derive_private_key(int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big"), ec.SECP384R1())

    def raw_report(
        self,
        report_data: bytes,
        *,
        measurement: bytes = MEASUREMENT,
        policy: int = POLICY,
        vmpl: int = 0,
        guest_svn: int = 1,
        reported_tcb: Mapping[str, int] | None = None,
        committed_tcb: Mapping[str, int] | None = None,
        current_tcb: Mapping[str, int] | None = None,
        version: int = 3,
        signing_key: str = "vcek",
        chip: str = "chip",
        mask_chip: bool = False,
        host_data: bytes = bytes(32),
        id_key_digest: bytes = bytes(48),
        author_key_digest: bytes | None = None,
        migration_agent: bytes = NO_AGENT,
        platform_info: int = 0x25,
        patch: Mapping[int, bytes] | None = None,
    ) -> bytes:
        """A signed report, 1,184 bytes. TCB versions left out are the product's own, and equal. ``patch`` writes bytes at
        offsets before the firmware signs, so that a report may be wrong and its signature right.
        """
        reported, committed = self._levels(reported_tcb), self._levels(committed_tcb or reported_tcb)
        current = self._levels(current_tcb or committed_tcb or reported_tcb)
        flags = (author_key_digest is not None) | (("vcek", "vlek").index(signing_key) << 2)
        body = bytearray(0x2A0)
        fields: dict[int, bytes] = {
            0x00: version.to_bytes(4, "little") + guest_svn.to_bytes(4, "little") + policy.to_bytes(8, "little"),
            0x30: vmpl.to_bytes(4, "little") + (1).to_bytes(4, "little"),
            0x38: self.tcb_bytes(current) + platform_info.to_bytes(8, "little"),
            0x48: flags.to_bytes(4, "little"),
            0x50: report_data + measurement + host_data + id_key_digest + (author_key_digest or bytes(48)),
            0x140: hashlib.sha256(b"guest" + chip.encode()).digest() + migration_agent,
            0x180: self.tcb_bytes(reported),
            0x188: bytes(self._line.cpu if version >= 3 else 3),
            0x1A0: bytes(64) if mask_chip else self.chip_id(chip),
            0x1E0: self.tcb_bytes(committed) + bytes([21, 55, 1, 0]) * 2 + self.tcb_bytes(reported),
            0x1F8: bytes([3]) + bytes(7) + bytes([3]) if version >= 5 else b"",
        }
        for offset, value in (*fields.items(), *(patch or {}).items()):
            body[offset : offset + len(value)] = value
        return self.sign(bytes(body), self.signing_key(chip, reported_tcb, signing_key))

    @staticmethod
    def sign(body: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        """A report's first 672 bytes with a signature behind them."""
        r, s = decode_dss_signature(key.sign(body, ec.ECDSA(SHA384(), deterministic_signing=True)))
        return body + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)

    def report(self, report_data: bytes, **options: object) -> bytes:
        """A payload: a signed report (options of ``raw_report``) with its chain."""
        raw = self.raw_report(report_data, **options)  # type: ignore[arg-type]
        names = {"reported_tcb": "tcb", "chip": "chip", "signing_key": "signing_key"}
        chain = self.chain(**{names[k]: v for k, v in options.items() if k in names})  # type: ignore[arg-type]
        return build_snp_evidence(raw, chain)

    def evidence(self, report_data: bytes, **options: object) -> Evidence:
        """The same as evidence."""
        return Evidence(EvidenceKind.SNP, self.report(report_data, **options))

    def tcb_bytes(self, levels: Mapping[str, int]) -> bytes:
        """A TCB_VERSION of this product."""
        raw = bytearray(8)
        for name, number in levels.items():
            raw[self._line.places[name]] = number
        return bytes(raw)

    def _levels(self, tcb: Mapping[str, int] | None) -> Mapping[str, int]:
        return {**self._line.tcb, **(tcb or {})}

    @property
    def _line(self) -> _Line:
        return _LINES[self.product]


@cache
def _authority_certificate(product: str, key: str, issuer_key: str, name: str, serial: int) -> bytes:
    """Made once a process: PSS is salted, so two signatures of one certificate differ, and a root is pinned by its bytes."""
    own = key if name.startswith("ARK-") else issuer_key
    public = rsa_key(own).public_key()
    return SnpAuthority(product, key).certificate(name, f"ARK-{product}", public=public, serial=serial)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*, lists: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=lists,
        encipher_only=False,
        decipher_only=False,
    )


def _der_int(number: int) -> bytes:
    content = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return bytes([2, len(content)]) + content


def _ia5(text: str) -> bytes:
    return bytes([0x16, len(text)]) + text.encode()
