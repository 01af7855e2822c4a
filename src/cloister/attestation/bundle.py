"""Collateral bundles: all documents of a collateral service in one dated file, for machines without a network.

Deterministic CBOR: ``{1: "cloister-collateral/1", 2: made at (unix seconds), 3: [[kind, name, content], ...], 4: [[family, name,
key, root, issued, evaluation or null, number or null], ...]}``. Member 4 repeats the floors that the maker had reached. Nobody
believes either member: documents are proven where the file is read, and floors follow from what was proven. A bundle whose
floors are above its documents was made of an old document, so it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cloister.attestation.cbor import Value, build_cbor, parse_cbor
from cloister.attestation.collateral import Document
from cloister.attestation.depth import check_depth
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.pieces import MAX_BODY, Family, PieceId, PieceName
from cloister.attestation.provenance import Floor
from cloister.errors import DecodeError, TooLarge, quoted

MAX_BUNDLE: Final = 16 * 1024 * 1024
"""Longest bundle, in bytes: some 800 platforms of Intel's."""
MAX_DOCUMENTS: Final = 4096
_VERSION: Final = "cloister-collateral/1"

RootedId = tuple[bytes, PieceId]
"""SHA-256 of a root, and which piece under it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a file says; nothing of it is proven."""

    made_at: int
    documents: tuple[Document, ...]
    floors: Mapping[RootedId, Floor]


def build_bundle(documents: Iterable[Document], floors: Mapping[RootedId, Floor], *, made_at: int) -> bytes:
    """Write a bundle; the same documents, floors and time give the same bytes."""
    listed: list[Value] = [[str(each.kind), each.name, each.content] for each in documents]
    reached: list[Value] = [
        [str(id_.family), str(id_.name), id_.key, root, floor.issued, floor.evaluation, floor.number]
        for (root, id_), floor in sorted(floors.items(), key=lambda item: item[0])
    ]
    return build_cbor({1: _VERSION, 2: made_at, 3: listed, 4: reached})


def parse_bundle(encoded: bytes) -> Bundle:
    """Read a bundle.

    Raises:
        TooLarge: over 16 MiB. DecodeError: another form.
    """
    if len(encoded) > MAX_BUNDLE:
        raise TooLarge(f"a bundle of {len(encoded)} bytes is over the cap of {MAX_BUNDLE}")
    match parse_cbor(encoded):
        case {1: str(version), 2: int(made_at), 3: list(documents), 4: list(floors)} if version == _VERSION:
            return Bundle(made_at, tuple(map(_parse_document, documents)), dict(map(_parse_floor, floors)))
        case {1: str(version)} if version != _VERSION:
            raise DecodeError(f"a bundle of version {quoted(version)} is not {_VERSION}", code="collateral-malformed")
        case _:
            raise DecodeError("the file is no collateral bundle", code="collateral-malformed")


def parse_collateral_file(content: bytes, kind: EvidenceKind | None = None) -> tuple[Document, ...]:
    """Read what an operator may have: a bundle, a QuoteCollateralV3 in JSON (as Intel's tools write it), or with a ``kind`` a
    certificate or CRL in DER or PEM.

    Raises:
        TooLarge, DecodeError.
    """
    if content[:1] == b"{":
        return (Document(_kind_of_dcap(content), "dcap", content),)
    if kind is not None:
        return _parse_loose(content, kind)
    return parse_bundle(content).documents


def _kind_of_dcap(content: bytes) -> EvidenceKind:
    if len(content) > MAX_BODY:
        raise TooLarge(f"a json file of {len(content)} bytes is over the cap of {MAX_BODY}")
    try:
        return EvidenceKind(
            json.loads(check_depth(json.loads(check_depth(content))["tcb_info"].encode()))["id"].lower()
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DecodeError("the file is json and no QuoteCollateralV3", code="collateral-malformed") from error


def _parse_loose(content: bytes, kind: EvidenceKind) -> tuple[Document, ...]:
    """Certificates or a CRL, DER or PEM. Roots among them are left out: the relying party names those."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    if len(content) > MAX_BODY:
        raise TooLarge(f"a file of {len(content)} bytes is over the cap of {MAX_BODY}")
    is_pem = content.lstrip()[:5] == b"-----"
    with suppress(ValueError):
        crl = (x509.load_pem_x509_crl if is_pem else x509.load_der_x509_crl)(content)
        return (Document(kind, "crl", crl.public_bytes(Encoding.DER)),)
    try:
        found = x509.load_pem_x509_certificates(content) if is_pem else [x509.load_der_x509_certificate(content)]
    except ValueError as error:
        raise DecodeError("the file is neither a certificate nor a CRL", code="collateral-malformed") from error
    return tuple(
        Document(kind, "certificate", each.public_bytes(Encoding.DER)) for each in found if each.subject != each.issuer
    )


def _parse_document(item: Value) -> Document:
    match item:
        case [str(kind), str(name), bytes(content)] if kind in set(EvidenceKind):
            return Document(EvidenceKind(kind), name, content)
        case _:
            raise DecodeError("a document of the bundle is not [kind, name, content]", code="collateral-malformed")


def _parse_floor(item: Value) -> tuple[RootedId, Floor]:
    match item:
        case [
            str(family),
            str(name),
            str(key),
            bytes(root),
            int(issued),
            int() | None as evaluation,
            int() | None as number,
        ] if family in set(Family) and name in set(PieceName) and len(root) == 32 and len(key) <= 256:
            return (root, PieceId(Family(family), PieceName(name), key)), Floor(issued, evaluation, number)
        case _:
            raise DecodeError("a floor of the bundle has another form", code="collateral-malformed")
