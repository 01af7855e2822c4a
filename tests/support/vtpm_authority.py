"""An Azure confidential VM in software: a paravisor's report under a vendor's root of our own, and a virtual TPM whose
attestation key it names. Every part is open to change.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support.rsa_keys import rsa_key
from tests.support.snp_authority import SnpAuthority
from tests.support.tpm_authority import Attest, Boot, boot_pcrs, sign_attest

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.tpm.azure import SnpVtpmPayload, build_snp_vtpm_payload
from cloister.attestation.tpm.payload import build_qualifying_data

NOW = 1_800_000_000
SETUP = {
    "console-enabled": True,
    "secure-boot": True,
    "tpm-enabled": True,
    "vmUniqueId": "911B0EF8-9DBA-48B0-B275-4E4DF2D39252",
}


@dataclass(frozen=True)
class VtpmAuthority:
    """``ak`` is the virtual TPM's attestation key; ``snp`` makes the hardware's half."""

    snp: SnpAuthority = field(default_factory=SnpAuthority.create)
    ak: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def collateral(self) -> Collateral:
        """The vendor's root for this kind, its revocation list beside it."""
        documents = (Document(EvidenceKind.SNP_VTPM, "crl", self.snp.crl()),)
        return Collateral(((EvidenceKind.SNP_VTPM, self.snp.ark),), documents)

    def claims(self, **members: object) -> bytes:
        """The paravisor's JSON; ``members`` replace those of its top level."""
        keys = [
            jwk("HCLAkPub", ["sign"], self.ak.public_key()),
            jwk("HCLEkPub", ["encrypt"], rsa_key("root").public_key()),
        ]
        value = {"keys": keys, "vm-configuration": SETUP, "user-data": "00" * 64} | members
        return json.dumps(value, separators=(",", ":")).encode()

    def hcl(
        self,
        claims: bytes | None = None,
        *,
        report_data: bytes | None = None,
        header: Mapping[int, int] | None = None,
        tail: bytes = bytes(200),
        **report: object,
    ) -> bytes:
        """The paravisor's report. ``header`` replaces 32-bit numbers by offset; ``report`` are ``raw_report``'s options."""
        claims = self.claims() if claims is None else claims
        bound = hashlib.sha256(claims).digest() + bytes(32) if report_data is None else report_data
        size = len(claims) + 20
        head = b"HCLA" + struct.pack("<4I", 1, 32 + 1184 + size, 2, 0) + bytes(12)
        runtime = struct.pack("<5I", size, 1, 2, 1, len(claims))
        whole = bytearray(head + self.snp.raw_report(bound, **report) + runtime + claims + tail)
        for offset, number in (header or {}).items():
            whole[offset : offset + 4] = struct.pack("<I", number)
        return bytes(whole)

    def parts(
        self,
        report_data: bytes,
        *,
        boot: Boot | None = None,
        pcrs: Mapping[int, bytes] | None = None,
        hcl: bytes | None = None,
        report: Mapping[str, object] | None = None,
        **attest: object,
    ) -> SnpVtpmPayload:
        """Honest evidence in members: all 24 registers, or ``pcrs`` alone; ``attest`` replaces fields of the quote."""
        log = (boot or Boot()).log()
        values = boot_pcrs(log) if pcrs is None else dict(pcrs)
        fields = {"extra_data": build_qualifying_data(report_data), "pcrs": values} | attest
        encoded = Attest(**fields).encode()
        signature = sign_attest(self.ak, encoded)
        chain = tuple(self.snp.chain())
        return SnpVtpmPayload(hcl or self.hcl(**(report or {})), chain, encoded, signature, values, log, report_data)

    def evidence(self, report_data: bytes, **options: object) -> Evidence:
        return encode_vtpm(self.parts(report_data, **options))


def encode_vtpm(parts: SnpVtpmPayload) -> Evidence:
    """Evidence of these members."""
    members = {name: getattr(parts, name) for name in SnpVtpmPayload.__slots__}
    return Evidence(EvidenceKind.SNP_VTPM, build_snp_vtpm_payload(**members))


def jwk(name: str, operations: list[str], key: rsa.RSAPublicKey) -> dict[str, object]:
    modulus = key.public_numbers().n
    raw = modulus.to_bytes((modulus.bit_length() + 7) // 8, "big")
    return {"kid": name, "key_ops": operations, "kty": "RSA", "e": "AQAB", "n": base64url(raw)}


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
