"""Pieces: the parts of vendors' collateral as they are issued, kept, refreshed and proven one by one.

A verifier wants a ``Document``; Intel's ``dcap`` document is seven statements that are issued apart and age apart. Here they
are apart: each has a name and a key under which there is one newest.

==============  ======  =========================================  ============================================
name            family  key                                        body
==============  ======  =========================================  ============================================
``tcb-info``    intel   ``tdx/<fmspc>``, ``sgx/<fmspc>``           JSON as signed; signature, signer's chain
``qe-identity`` intel   ``tdx``, ``sgx``                           JSON as signed; signature, signer's chain
``root-crl``    intel   ``root``                                   CRL (DER)
``pck-crl``     intel   ``platform``, ``processor``                CRL (DER); issuer's chain
``crl``         amd     ``<product>``                              CRL (DER)
``crl``         tpm     ``root``                                   CRL (DER)
``certificate`` amd     ``<product>/ask``, ``<product>/asvk``,     certificate (DER)
                        ``<product>/<chip id>/<tcb>``
==============  ======  =========================================  ============================================

Hex is lower case. ``fmspc`` has 6 bytes, a chip id 64 (Turin: 8), ``tcb`` the 8 bytes of REPORTED_TCB as they stand in the
report. Sources: Intel PCS API v4; AMD 57230 (VCEK and KDS) and 56860 (SEV-SNP firmware ABI).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.depth import check_depth
from cloister.attestation.evidence import EvidenceKind
from cloister.errors import DecodeError, InputError, TooLarge, quoted

MAX_BODY: Final = 256 * 1024
"""Longest body of a piece, in bytes. Intel's longest CRL has some 7 KiB."""
MAX_CHAIN: Final = 16 * 1024
PRODUCTS: Final = ("Milan", "Genoa", "Turin")


class Family(StrEnum):
    """Who issues; one family may serve several kinds of evidence."""

    INTEL = "intel"
    AMD = "amd"
    TPM = "tpm"


KINDS: Final[Mapping[Family, tuple[EvidenceKind, ...]]] = {
    Family.INTEL: (EvidenceKind.TDX, EvidenceKind.SGX),
    Family.AMD: (EvidenceKind.SNP, EvidenceKind.SNP_VTPM),
    Family.TPM: (EvidenceKind.TPM,),
}


def family_of(kind: EvidenceKind) -> Family | None:
    """Whose collateral a kind of evidence needs; None for simulated evidence, which needs none."""
    return next((family for family, kinds in KINDS.items() if kind in kinds), None)


def roots_of_family(collateral: Collateral, family: Family) -> tuple[bytes, ...]:
    """The trusted roots (DER) of every kind in a family, each once."""
    return tuple(dict.fromkeys(root for kind in KINDS[family] for root in collateral.roots_of(kind)))


class PieceName(StrEnum):
    """What a piece is."""

    TCB_INFO = "tcb-info"
    QE_IDENTITY = "qe-identity"
    ROOT_CRL = "root-crl"
    PCK_CRL = "pck-crl"
    CRL = "crl"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, order=True)
class PieceId:
    """Which piece: under one trusted root there is one newest of each id."""

    family: Family
    name: PieceName
    key: str

    def __str__(self) -> str:
        return f"{self.family} {self.name} {self.key}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece as the vendor made it, not proven. ``signature`` (64 bytes, r || s) and ``chain`` (PEM) where the table says so."""

    family: Family
    name: PieceName
    body: bytes
    signature: bytes = b""
    chain: bytes = b""

    def __post_init__(self) -> None:
        if not self.body:
            raise DecodeError(f"the {self.name} is empty", code="collateral-malformed")
        if len(self.body) > MAX_BODY or len(self.chain) > MAX_CHAIN or len(self.signature) > 128:
            raise TooLarge(f"the {self.name} is over the cap of {MAX_BODY} bytes", code="collateral-too-large")


_HEX: Final = {"fmspc": 6, "chip": None, "tcb": 8}
_PRODUCT: Final = re.compile(r"[A-Z][A-Za-z0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Need:
    """What the collateral of one piece of evidence is looked up by.

    TDX and SGX: ``fmspc`` (hex) and ``ca`` (``platform`` or ``processor``). SNP: ``product``; where the evidence brings no
    certificate of its chip also ``chip`` and ``tcb`` (hex); ``vlek`` when a VLEK signed. TPM: nothing.

    Raises:
        InputError: a member that is missing, too much or malformed.
    """

    kind: EvidenceKind
    fmspc: str = ""
    ca: str = ""
    product: str = ""
    chip: str = ""
    tcb: str = ""
    vlek: bool = False

    def __post_init__(self) -> None:
        family = family_of(self.kind)
        for name, size in _HEX.items():
            value = getattr(self, name)
            if value and not re.fullmatch(f"[0-9a-f]{{{2 * size}}}" if size else "[0-9a-f]{16}|[0-9a-f]{128}", value):
                raise InputError(f"{name} {quoted(value)} is not lower-case hex of the right length")
        intel = bool(self.fmspc) and self.ca in ("platform", "processor")
        if family is Family.INTEL and not intel:
            raise InputError(f"{self.kind} needs fmspc and ca, which is platform or processor")
        if family is Family.AMD and not _PRODUCT.fullmatch(self.product):
            raise InputError(f"product {quoted(self.product)} is not the name of one", hint=", ".join(PRODUCTS))
        if bool(self.chip) != bool(self.tcb):
            raise InputError("chip and tcb are given together, or neither")
        if family is not Family.INTEL and (self.fmspc or self.ca):
            raise InputError(f"{self.kind} takes neither fmspc nor ca")
        if family is not Family.AMD and (self.product or self.chip or self.vlek):
            raise InputError(f"{self.kind} takes neither product nor chip")

    def pieces(self) -> tuple[PieceId, ...]:
        """The pieces without which such evidence cannot be judged; what tells most of the platform comes last."""
        family = family_of(self.kind)
        if family is Family.INTEL:
            keys = (
                (PieceName.ROOT_CRL, "root"),
                (PieceName.PCK_CRL, self.ca),
                (PieceName.QE_IDENTITY, str(self.kind)),
                (PieceName.TCB_INFO, f"{self.kind}/{self.fmspc}"),
            )
            return tuple(PieceId(family, name, key) for name, key in keys)
        if family is Family.AMD:
            found = [PieceId(family, PieceName.CERTIFICATE, f"{self.product}/{'asvk' if self.vlek else 'ask'}")]
            found.append(PieceId(family, PieceName.CRL, self.product))
            if self.chip:
                found.append(PieceId(family, PieceName.CERTIFICATE, f"{self.product}/{self.chip}/{self.tcb}"))
            return tuple(found)
        return ()


DCAP_MEMBERS: Final = (
    *("pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info", "tcb_info_signature"),
    *("qe_identity_issuer_chain", "qe_identity", "qe_identity_signature"),
)
"""Members of a QuoteCollateralV3 in JSON, all text: chains PEM, CRLs and signatures hex, the two statements as signed."""


def split_document(document: Document) -> tuple[Piece, ...]:
    """Take a document apart, what proves others first.

    Raises:
        DecodeError: not a document of this kind and name, or it does not parse. TooLarge.
    """
    family = family_of(document.kind)
    match family, document.name:
        case Family.INTEL, "dcap":
            return _split_dcap(document.content)
        case ((Family.AMD | Family.TPM), "crl"):
            return (Piece(family, PieceName.CRL, document.content),)
        case Family.AMD, "certificate":
            return (Piece(family, PieceName.CERTIFICATE, document.content),)
        case _:
            raise DecodeError(
                f"{document.kind} has no collateral named {quoted(document.name)}", code="collateral-malformed"
            )


def _split_dcap(content: bytes) -> tuple[Piece, ...]:
    if len(content) > MAX_BODY:
        raise TooLarge(
            f"the dcap document has {len(content)} bytes; the cap is {MAX_BODY}", code="collateral-too-large"
        )
    try:
        value = json.loads(check_depth(content))
        texts = {name: value[name] for name in DCAP_MEMBERS}
        raw = {name: str.encode(text) for name, text in texts.items()}  # refuses what is no text
        binary = {name: bytes.fromhex(texts[name]) for name in DCAP_MEMBERS if name.endswith(("_crl", "_signature"))}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DecodeError(
            "the dcap document is not a QuoteCollateralV3 in json", code="collateral-malformed"
        ) from error
    intel = Family.INTEL
    return (
        Piece(intel, PieceName.ROOT_CRL, binary["root_ca_crl"]),
        Piece(intel, PieceName.PCK_CRL, binary["pck_crl"], chain=raw["pck_crl_issuer_chain"]),
        *(
            Piece(intel, name, raw[member], binary[f"{member}_signature"], raw[f"{member}_issuer_chain"])
            for name, member in ((PieceName.TCB_INFO, "tcb_info"), (PieceName.QE_IDENTITY, "qe_identity"))
        ),
    )


def join_dcap(kind: EvidenceKind, pieces: Mapping[PieceName, Piece]) -> Document:
    """Put the four pieces of Intel's together as the verifier takes them."""
    tcb_info, identity = pieces[PieceName.TCB_INFO], pieces[PieceName.QE_IDENTITY]
    pck_crl = pieces[PieceName.PCK_CRL]
    members = (
        *(pck_crl.chain.decode(), pieces[PieceName.ROOT_CRL].body.hex(), pck_crl.body.hex()),
        *(tcb_info.chain.decode(), tcb_info.body.decode(), tcb_info.signature.hex()),
        *(identity.chain.decode(), identity.body.decode(), identity.signature.hex()),
    )
    return Document(kind, "dcap", json.dumps(dict(zip(DCAP_MEMBERS, members, strict=True))).encode())


def join_documents(need: Need, pieces: Sequence[tuple[PieceId, Piece]]) -> tuple[Document, ...]:
    """The documents that a verifier takes, made of the pieces found for a need."""
    family = family_of(need.kind)
    if family is Family.INTEL:
        return (join_dcap(need.kind, {id_.name: piece for id_, piece in pieces}),)
    names: Iterable[tuple[str, bytes]] = (
        ("crl" if id_.name is PieceName.CRL else "certificate", piece.body) for id_, piece in pieces
    )
    found = tuple(names)
    # A verifier that rests on another's chain finds the documents under either kind.
    kinds = KINDS[Family.AMD] if need.kind is EvidenceKind.SNP_VTPM else (need.kind,)
    return tuple(Document(kind, name, content) for kind in kinds for name, content in found)
