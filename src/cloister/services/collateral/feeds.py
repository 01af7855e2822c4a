"""Feeds: where pieces come from. Each speaks a vendor's own HTTP, under any base URL; nothing that it gives is believed.

Sources: Intel PCS API v4 (and PCCS, which serves the same paths), AMD 57230 section 4 (KDS).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.depth import check_depth
from cloister.attestation.pieces import MAX_BODY, Family, Piece, PieceId, PieceName
from cloister.errors import DecodeError, NotFound
from cloister.transport import Answer, Http

INTEL_PCS: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
AMD_KDS: Final = "https://kdsintf.amd.com"
TIMEOUT: Final = 10.0
_SIGNED: Final = re.compile(r'\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*')
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2})+")


class Feed(Protocol):
    """One source. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """Short, for status and logs; holds no secret."""
        ...

    @property
    def standing(self) -> Sequence[PieceId]:
        """Pieces that are fetched without anybody's asking."""
        ...

    def fetch(self, wanted: PieceId) -> Piece:
        """Fetch one piece.

        Raises:
            NotFound: this source has no such piece. UnavailableError: it does not answer. RemoteError, DecodeError: it
            answers with something else.
        """
        ...


class IntelFeed:
    """Intel's PCS, or a PCCS. ``root_crl_url``: where the root's CRL is; None asks ``/sgx/certification/v4/rootcacrl``, as a
    PCCS has it. ``platforms``: ``tdx/<fmspc>`` or ``sgx/<fmspc>`` to fetch ahead of any evidence.
    """

    def __init__(
        self, base_url: str, *, root_crl_url: str | None = None, platforms: Sequence[str] = (), timeout: float = TIMEOUT
    ) -> None:
        self._http = Http(base_url, timeout=timeout, max_response=MAX_BODY)
        self._root: tuple[Http, str] = (self._http, "/sgx/certification/v4/rootcacrl")
        if root_crl_url is not None:
            parts = urlsplit(root_crl_url)
            root = Http(f"{parts.scheme}://{parts.netloc}", timeout=timeout, max_response=MAX_BODY)
            self._root = (root, parts.path or "/")
        self.name = f"intel {self._http.base_url}"
        self.standing = tuple(_platform_pieces(platforms))

    def fetch(self, wanted: PieceId) -> Piece:
        """See ``Feed``."""
        if wanted.family is not Family.INTEL:
            raise NotFound(f"{self.name} has no {wanted}")
        kind, _, fmspc = wanted.key.partition("/")
        match wanted.name:
            case PieceName.TCB_INFO:
                answer = self._http.raw("GET", f"/{kind}/certification/v4/tcb", query={"fmspc": fmspc})
                return _statement(wanted, answer, "tcbInfo", ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"))
            case PieceName.QE_IDENTITY:
                answer = self._http.raw("GET", f"/{kind}/certification/v4/qe/identity")
                return _statement(wanted, answer, "enclaveIdentity", ("sgx-enclave-identity-issuer-chain",))
            case PieceName.PCK_CRL:
                query = {"ca": wanted.key, "encoding": "der"}
                answer = self._http.raw("GET", "/sgx/certification/v4/pckcrl", query=query)
                chain = _chain(wanted, answer, ("sgx-pck-crl-issuer-chain",))
                return Piece(Family.INTEL, PieceName.PCK_CRL, _der(answer.body), chain=chain)
            case PieceName.ROOT_CRL:
                http, path = self._root
                return Piece(Family.INTEL, PieceName.ROOT_CRL, _der(http.raw("GET", path).body))
            case _:
                raise NotFound(f"{self.name} has no {wanted}")


class AmdFeed:
    """AMD's KDS, or a mirror of it. ``products``: whose intermediate certificates and CRL to fetch ahead of any evidence."""

    def __init__(self, base_url: str, *, products: Sequence[str] = (), timeout: float = TIMEOUT) -> None:
        self._http = Http(base_url, timeout=timeout, max_response=MAX_BODY)
        self.name = f"amd {self._http.base_url}"
        ids = ((PieceName.CERTIFICATE, "/ask"), (PieceName.CRL, ""))
        self.standing = tuple(PieceId(Family.AMD, name, each + end) for each in products for name, end in ids)

    def fetch(self, wanted: PieceId) -> Piece:
        """See ``Feed``."""
        if wanted.family is not Family.AMD:
            raise NotFound(f"{self.name} has no {wanted}")
        product, *rest = wanted.key.split("/")
        match wanted.name, rest:
            case PieceName.CRL, []:
                body = self._http.raw("GET", f"/vcek/v1/{product}/crl").body
            case PieceName.CERTIFICATE, [("ask" | "asvk") as which]:
                service = "vcek" if which == "ask" else "vlek"
                body = _first_of_chain(self._http.raw("GET", f"/{service}/v1/{product}/cert_chain").body)
            case PieceName.CERTIFICATE, [chip, tcb]:
                query = _levels(product, bytes.fromhex(tcb))
                body = self._http.raw("GET", f"/vcek/v1/{product}/{chip}", query=query).body
            case _:
                raise NotFound(f"{self.name} has no {wanted}")
        return Piece(Family.AMD, wanted.name, body)


class TpmCrlFeed:
    """The CRL of the authority that certifies a network's TPMs, by URL."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url)
        self._http = Http(f"{parts.scheme}://{parts.netloc}", timeout=timeout, max_response=MAX_BODY)
        self._path = parts.path or "/"
        self.name = f"tpm {self._http.base_url}"
        self.standing = (PieceId(Family.TPM, PieceName.CRL, "root"),)

    def fetch(self, wanted: PieceId) -> Piece:
        """See ``Feed``."""
        if wanted.family is not Family.TPM:
            raise NotFound(f"{self.name} has no {wanted}")
        return Piece(Family.TPM, PieceName.CRL, _der(self._http.raw("GET", self._path).body))


def _platform_pieces(platforms: Sequence[str]) -> list[PieceId]:
    intel = Family.INTEL
    found: list[PieceId] = []
    for each in platforms:
        found.append(PieceId(intel, PieceName.TCB_INFO, each.lower()))
        found.append(PieceId(intel, PieceName.QE_IDENTITY, each.partition("/")[0].lower()))
    if found:
        found.append(PieceId(intel, PieceName.ROOT_CRL, "root"))
        found += [PieceId(intel, PieceName.PCK_CRL, ca) for ca in ("platform", "processor")]
    return list(dict.fromkeys(found))


def _statement(wanted: PieceId, answer: Answer, member: str, headers: Sequence[str]) -> Piece:
    """Cut the signed JSON out of its answer byte by byte: what is parsed and written anew has another signature."""
    try:
        text = check_depth(answer.body).decode("ascii")
        head = re.match(rf'\s*\{{\s*"{member}"\s*:\s*', text)
        if head is None:
            raise DecodeError(f"the answer for {wanted} holds no {member}", code="collateral-malformed")
        end = json.JSONDecoder().raw_decode(text, head.end())[1]
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the answer for {wanted} does not parse", code="collateral-malformed") from error
    tail = _SIGNED.fullmatch(text, end)
    if tail is None:
        raise DecodeError(f"the answer for {wanted} holds no signature", code="collateral-malformed")
    chain = _chain(wanted, answer, headers)
    return Piece(Family.INTEL, wanted.name, text[head.end() : end].encode(), bytes.fromhex(tail[1]), chain)


def _chain(wanted: PieceId, answer: Answer, headers: Sequence[str]) -> bytes:
    found = next((answer.headers[name] for name in headers if name in answer.headers), None)
    if found is None:
        raise DecodeError(f"the answer for {wanted} brings no issuer chain", code="collateral-malformed")
    return unquote(found).encode()


def _der(body: bytes) -> bytes:
    """A PCCS writes CRLs in hex where Intel writes DER."""
    trimmed = body.strip().strip(b'"')
    return bytes.fromhex(trimmed.decode()) if _HEX.fullmatch(trimmed) else body


def _first_of_chain(body: bytes) -> bytes:
    try:
        return x509.load_pem_x509_certificates(body)[0].public_bytes(Encoding.DER)
    except ValueError as error:
        raise DecodeError("the certificate chain does not parse", code="collateral-malformed") from error


def _levels(product: str, tcb: bytes) -> dict[str, int]:
    """REPORTED_TCB as KDS wants it; Turin's bytes stand in another order (AMD 57230 section 4.1)."""
    places = {"blSPL": 0, "teeSPL": 1, "snpSPL": 6, "ucodeSPL": 7}
    if product == "Turin":
        places = {"fmcSPL": 0, "blSPL": 1, "teeSPL": 2, "snpSPL": 3, "ucodeSPL": 7}
    return {name: tcb[place] for name, place in places.items()}
