"""The vendors' own services in small: they serve what test authorities sign, in the vendors' URL shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.dcap_authority import SOUND, DcapAuthority, Knobs
from tests.support.http import Reply
from tests.support.snp_authority import SnpAuthority

from cloister.attestation.evidence import EvidenceKind

DER = {"content-type": "application/octet-stream"}


@dataclass
class Intel:
    """Intel's PCS; ``as_pccs`` serves the root's CRL in hex on the path that a PCCS has. ``broken`` answers in its place."""

    authority: DcapAuthority
    knobs: Knobs = SOUND
    broken: Reply | None = None
    as_pccs: bool = True
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: dict[str, Any]) -> Reply:
        self.asked.append(request["target"])
        if self.broken is not None:
            return self.broken
        parts = urlsplit(request["target"])
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        kind = EvidenceKind(parts.path.split("/")[1]) if parts.path.count("/") > 1 else EvidenceKind.SGX
        members = self.authority.members(kind, self.knobs)
        match parts.path.removeprefix(f"/{kind}/certification/v4/"):
            case "tcb" if query.get("fmspc", "").lower() == self.knobs.fmspc.hex():
                return self._signed(members, "tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain")
            case "qe/identity":
                return self._signed(members, "qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain")
            case "pckcrl" if query.get("ca") == self.knobs.ca:
                chain = quote(members["pck_crl_issuer_chain"])
                return Reply(headers={**DER, "SGX-PCK-CRL-Issuer-Chain": chain}, body=bytes.fromhex(members["pck_crl"]))
            case "rootcacrl" if self.as_pccs:
                return Reply(body=members["root_ca_crl"].encode())
            case "/root.der" if not self.as_pccs:
                return Reply(headers=DER, body=bytes.fromhex(members["root_ca_crl"]))
            case _:
                return Reply(404)

    @staticmethod
    def _signed(members: dict[str, str], name: str, wrapper: str, header: str) -> Reply:
        body = f'{{"{wrapper}":{members[name]},"signature":"{members[name + "_signature"]}"}}'
        return Reply(headers={header: quote(members[f"{name}_issuer_chain"])}, body=body.encode())


@dataclass
class Amd:
    """AMD's KDS for one product and one chip."""

    authority: SnpAuthority
    broken: Reply | None = None
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: dict[str, Any]) -> Reply:
        self.asked.append(request["target"])
        if self.broken is not None:
            return self.broken
        parts = urlsplit(request["target"])
        product, amd = self.authority.product, self.authority
        chip = amd.chip_id().hex()[: 16 if product == "Turin" else 128]
        match parts.path.split("/")[1:]:
            case ["vcek", "v1", named, "crl"] if named == product:
                return Reply(headers=DER, body=amd.crl())
            case ["vcek", "v1", named, "cert_chain"] if named == product:
                return Reply(body=_pem(amd.ask) + _pem(amd.ark))
            case ["vlek", "v1", named, "cert_chain"] if named == product:
                return Reply(body=_pem(amd.asvk) + _pem(amd.ark))
            case ["vcek", "v1", named, asked] if named == product and asked == chip:
                names = {
                    "blSPL": "bootloader",
                    "teeSPL": "tee",
                    "snpSPL": "snp",
                    "ucodeSPL": "microcode",
                    "fmcSPL": "fmc",
                }
                levels = {names[name]: int(values[0]) for name, values in parse_qs(parts.query).items()}
                return Reply(headers=DER, body=amd.leaf(tcb=levels))
            case _:
                return Reply(404)


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
