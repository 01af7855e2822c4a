"""From a key that signs SEV-SNP reports to AMD's root: who issued what, when it is valid, and what was revoked.

VCEK (a chip's key at one firmware level) is signed by the ASK of its product, VLEK (leased to a cloud provider) by the
ASVK; both of these by the ARK, which the relying party pins by its bytes (AMD 57230).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cloister.attestation import der
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verifiers.amd_certificates import (
    Certificate,
    RevocationList,
    load_signing_key,
    parse_certificate,
    parse_revocation_list,
    signed_by,
)
from cloister.attestation.verifiers.snp_report import Product, Report, read_tcb
from cloister.errors import DecodeError, VerificationError

_MAX_DOCUMENTS = 64
_KIND = EvidenceKind.SNP

_ARC = bytes.fromhex("2b060104019c7801")
"""1.3.6.1.4.1.3704.1: AMD's arc for these certificates."""
_PRODUCT_NAME = _ARC + b"\x02"
_VERSIONS = {
    name: _ARC + b"\x03" + bytes([n])
    for name, n in {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 8, "fmc": 9}.items()
}
_CHIP = _ARC + b"\x04"
_PROVIDER = _ARC + b"\x05"
_PRODUCTS = {p.value: p for p in Product} | {"Bergamo": Product.GENOA, "Siena": Product.GENOA}
_CHIP_SIZE = {Product.MILAN: 64, Product.GENOA: 64, Product.TURIN: 8}


class Signer(StrEnum):
    """Whose key signed a report; the value is the common name of its certificate."""

    VCEK = "SEV-VCEK"
    VLEK = "SEV-VLEK"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """What AMD says of the key that signs reports.

    ``root``: SHA-256 of the pinned root (DER). ``tcb``: versions by name, as ``snp_report.read_tcb`` names them. ``chip``:
    CHIP_ID as it stands in a report (64 bytes), None for a VLEK; ``provider``: to whom a VLEK is leased.
    ``revocation_checked``: a list that is valid now, signed by the root, does not name the issuer.
    """

    certificate: Certificate
    signer: Signer
    product: Product
    root: bytes
    tcb: dict[str, int]
    chip: bytes | None
    provider: str | None
    revocation_checked: bool


def verify_endorsement(certificates: Sequence[bytes], report: Report, collateral: Collateral, now: int) -> Endorsement:
    """Prove the key that signs ``report``, from the evidence's certificates (DER) and the collateral.

    ``report`` only chooses among collateral certificates when the evidence brings none. ``now``: unix seconds.

    Raises:
        DecodeError: ``certificate-malformed``, ``collateral-malformed``.
        VerificationError: ``no-trusted-root``, ``certificate-missing``, ``certificate-unexpected``, ``certificate-signature``,
        ``untrusted-root``, ``certificate-key``, ``certificate-role``, ``certificate-not-yet-valid``,
        ``certificate-expired``, ``certificate-revoked``, ``collateral-signature``, ``collateral-expired``,
        ``collateral-not-yet-valid``.
    """
    roots = [parse_certificate(raw) for raw in collateral.roots_of(_KIND)]
    if not roots:
        raise VerificationError("no root of AMD is trusted here", code="no-trusted-root")
    given = [parse_certificate(raw) for raw in certificates]
    known = _parse_documents(collateral)
    leaf = given[0] if given else _find_leaf(known, report)
    issuer = _find_issuer(leaf, [*given[1:], *known])
    root = _find_root(issuer, roots)
    _check_all_used(given, leaf, issuer, roots)
    for certificate, what in ((leaf, "signing key's"), (issuer, "issuer's"), (root, "root")):
        _check_validity(certificate, what, now)
    signer, product = _check_roles(leaf, issuer, root)
    checked = _check_revocation(collateral, (leaf, issuer, root), now)
    return Endorsement(
        certificate=leaf,
        signer=signer,
        product=product,
        root=hashlib.sha256(root.raw).digest(),
        tcb=_parse_tcb(leaf, product),
        chip=_parse_chip(leaf, product) if signer is Signer.VCEK else None,
        provider=_parse_provider(leaf) if signer is Signer.VLEK else None,
        revocation_checked=checked,
    )


def _parse_documents(collateral: Collateral) -> list[Certificate]:
    documents = collateral.documents_of(_KIND, "certificate")
    if len(documents) > _MAX_DOCUMENTS:
        raise DecodeError(f"the collateral has {len(documents)} certificates", code="collateral-malformed")
    try:
        return [parse_certificate(raw) for raw in documents]
    except DecodeError as error:
        raise DecodeError(f"in the collateral, {error.message}", code="collateral-malformed") from error


def _find_leaf(known: Sequence[Certificate], report: Report) -> Certificate:
    """The collateral's certificate for this report's chip and firmware. Its claims are proven later, as any other's."""
    for certificate in known:
        try:
            product = _product(certificate)
            tcb = _parse_tcb(certificate, product) == read_tcb(product, report.reported_tcb)
            if certificate.common_name == Signer.VLEK and tcb and report.signing_key == 1:
                return certificate
            if certificate.common_name != Signer.VCEK or not tcb or report.signing_key != 0:
                continue
            if _parse_chip(certificate, product) == report.chip_id:
                return certificate
        except (DecodeError, VerificationError):
            continue  # another certificate than one of a signing key
    raise VerificationError(
        "no certificate for the key that signed the SEV-SNP report is at hand",
        code="certificate-missing",
        hint="give the VCEK or VLEK certificate with the evidence or as collateral",
    )


def _find_issuer(leaf: Certificate, candidates: Sequence[Certificate]) -> Certificate:
    named = [c for c in candidates if c.subject == leaf.issuer]
    for candidate in named:
        if signed_by(leaf.signed, leaf.signature, candidate):
            return candidate
    if named:
        raise VerificationError(
            "the certificate of the signing key is not signed by its issuer", code="certificate-signature"
        )
    raise VerificationError(
        "the issuer of the signing key's certificate is not at hand",
        code="certificate-missing",
        hint="give AMD's ASK (for a VLEK its ASVK) with the evidence or as collateral",
    )


def _find_root(issuer: Certificate, roots: Sequence[Certificate]) -> Certificate:
    for root in roots:
        if root.subject == issuer.issuer and signed_by(issuer.signed, issuer.signature, root):
            return root
    raise VerificationError("no trusted root signed the issuer of the signing key", code="untrusted-root")


def _check_all_used(
    given: Sequence[Certificate], leaf: Certificate, issuer: Certificate, roots: Sequence[Certificate]
) -> None:
    """Evidence holds its chain and nothing beside it: the host may not add what nobody reads."""
    pinned = {root.raw for root in roots}
    seen: set[bytes] = set()
    for certificate in given:
        if certificate.raw in seen:
            raise VerificationError("a certificate of the evidence stands twice", code="certificate-unexpected")
        seen.add(certificate.raw)
        if certificate.raw in pinned or certificate.raw in (leaf.raw, issuer.raw):
            continue
        if certificate.subject == certificate.issuer:
            raise VerificationError("the root in the evidence is not one that is trusted", code="untrusted-root")
        raise VerificationError("a certificate of the evidence is no part of its chain", code="certificate-unexpected")


def _check_validity(certificate: Certificate, what: str, now: int) -> None:
    if now < certificate.not_before:
        raise VerificationError(f"the {what} certificate is not valid yet", code="certificate-not-yet-valid")
    if now > certificate.not_after:
        raise VerificationError(f"the {what} certificate has expired", code="certificate-expired")


def _check_roles(leaf: Certificate, issuer: Certificate, root: Certificate) -> tuple[Signer, Product]:
    """Each certificate is what its place says; names and product agree along the chain."""
    load_signing_key(leaf)
    if leaf.authority or leaf.signs_certificates or leaf.signs_lists:
        raise VerificationError("the signing key's certificate is an authority's", code="certificate-role")
    for certificate in (issuer, root):
        if not (certificate.authority and certificate.signs_certificates):
            raise VerificationError("an issuer's certificate is not an authority's", code="certificate-role")
    try:
        signer = Signer(leaf.common_name)
    except ValueError as error:
        raise VerificationError("the certificate is neither a VCEK's nor a VLEK's", code="certificate-role") from error
    product = _product(leaf)
    prefix = "SEV-" if signer is Signer.VCEK else "SEV-VLEK-"
    if root.common_name != f"ARK-{product}" or issuer.common_name != f"{prefix}{product}":
        raise VerificationError(
            f"the issuers of this certificate are not those of {signer.value} for {product}", code="certificate-role"
        )
    return signer, product


def _check_revocation(collateral: Collateral, chain: Sequence[Certificate], now: int) -> bool:
    """Refuse what a list of its issuer names. True when the intermediate was looked up in a list that is valid now.

    AMD's lists are signed by the root and name intermediates; a VCEK has no serial number of its own to be named by.
    """
    encoded = collateral.documents_of(_KIND, "crl")
    if len(encoded) > _MAX_DOCUMENTS:
        raise DecodeError(f"the collateral has {len(encoded)} revocation lists", code="collateral-malformed")
    lists = [parse_revocation_list(raw) for raw in encoded]
    checked = False
    leaf, intermediate, root = chain
    for issuer, issued in ((root, (intermediate, root)), (intermediate, (leaf,))):
        own = [item for item in lists if item.issuer == issuer.subject]
        for item in own:
            if not issuer.signs_lists or not signed_by(item.signed, item.signature, issuer):
                raise VerificationError("a revocation list is not signed by its issuer", code="collateral-signature")
            # Past its date a list still says who was revoked.
            if any(certificate.serial in item.revoked for certificate in issued):
                raise VerificationError("a certificate of the chain is revoked", code="certificate-revoked")
        if own:
            _check_fresh(own, now)
            checked = checked or issuer is root
    return checked


def _check_fresh(lists: Sequence[RevocationList], now: int) -> None:
    """At least one of an issuer's lists is valid now."""
    if any(item.this_update <= now <= item.next_update for item in lists):
        return
    if all(now < item.this_update for item in lists):
        raise VerificationError("the revocation list is dated ahead", code="collateral-not-yet-valid")
    raise VerificationError(
        "the revocation list has expired", code="collateral-expired", hint="fetch AMD's list for this product again"
    )


def _value(leaf: Certificate, name: bytes, what: str) -> bytes:
    value = leaf.extensions.get(name)
    if value is None:
        raise VerificationError(f"the signing key's certificate does not say its {what}", code="certificate-role")
    return value


def _element(value: bytes, tag: int) -> der.Element:
    try:
        element = der.parse_element(value, tag)
        if tag == der.INTEGER:
            der.parse_integer(element)
    except DecodeError as error:
        raise DecodeError(f"an extension does not parse: {error.message}", code="certificate-malformed") from error
    return element


def _text(value: bytes, what: str) -> str:
    content = _element(value, der.IA5_STRING).content
    if not 0 < len(content) <= 64 or not content.isascii() or not content.decode("ascii").isprintable():
        raise DecodeError(f"the {what} in a certificate is not a short text", code="certificate-malformed")
    return content.decode("ascii")


def _product(leaf: Certificate) -> Product:
    """``Milan-B0`` is Milan of stepping B0."""
    name = _text(_value(leaf, _PRODUCT_NAME, "product"), "product").partition("-")[0]
    product = _PRODUCTS.get(name)
    if product is None:
        raise VerificationError("the signing key is of a product that is not known here", code="snp-product")
    return product


def _parse_tcb(leaf: Certificate, product: Product) -> dict[str, int]:
    versions = {}
    for name in read_tcb(product, bytes(8)):
        value = _value(leaf, _VERSIONS[name], f"{name} version")
        versions[name] = der.parse_integer(_element(value, der.INTEGER))
    return versions


def _parse_chip(leaf: Certificate, product: Product) -> bytes:
    """The chip's identifier, filled up to the 64 bytes of CHIP_ID. It stands there raw or as an octet string."""
    value, size = _value(leaf, _CHIP, "chip"), _CHIP_SIZE[product]
    if len(value) == size + 2:
        value = _element(value, der.OCTET_STRING).content
    if len(value) != size:
        raise VerificationError(f"a chip of {product} is not named by {len(value)} bytes", code="certificate-role")
    return value.ljust(64, b"\x00")


def _parse_provider(leaf: Certificate) -> str:
    if _CHIP in leaf.extensions:
        raise VerificationError("the certificate of a leased key names a chip", code="certificate-role")
    return _text(_value(leaf, _PROVIDER, "provider"), "provider")
