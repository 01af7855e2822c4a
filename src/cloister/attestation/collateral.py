"""Collateral: what a verifier needs beside the evidence. It is passed in; no verifier fetches or reads a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cloister.attestation.cbor import build_cbor, parse_cbor
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.errors import DecodeError, TooLarge

MAX_COLLATERAL = 512 * 1024
"""Longest encoding, in bytes. Intel's for one platform takes about 25 KiB."""


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of a vendor's collateral as the vendor made it.

    ``name`` tells pieces of one kind apart: ``dcap`` (JSON of Intel's, the members of a QuoteCollateralV3), ``certificate``
    (X.509, DER), ``crl`` (DER).
    """

    kind: EvidenceKind
    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Collateral:
    """``roots``: trusted root certificates (DER) by kind; they come from the relying party, never with the evidence.

    ``documents`` may come from anybody: each is proven by a root, or by a signature that leads to one.
    """

    roots: tuple[tuple[EvidenceKind, bytes], ...] = ()
    documents: tuple[Document, ...] = ()

    def roots_of(self, kind: EvidenceKind) -> tuple[bytes, ...]:
        """The trusted roots of one kind; none means that kind is refused."""
        return tuple(der for k, der in self.roots if k is kind)

    def documents_of(self, kind: EvidenceKind, name: str) -> tuple[bytes, ...]:
        """The pieces of one kind with this name."""
        return tuple(item.content for item in self.documents if item.kind is kind and item.name == name)

    def collateral_for(self, _evidence: Evidence, _now: int) -> Collateral:
        """Itself: what was given once is the collateral of all evidence. See ``CollateralSource``."""
        return self

    def with_documents(self, documents: Iterable[Document]) -> Collateral:
        """The same roots, and these pieces beside those that are there."""
        return Collateral(self.roots, (*self.documents, *documents))


class CollateralSource(Protocol):
    """Where a relying party gets the collateral of the evidence before it. Safe to call from several threads.

    Implemented by ``Collateral`` (always the same) and by ``clients.collateral.SourcedCollateral`` (its own roots, the documents
    of a collateral service).
    """

    @property
    def roots(self) -> tuple[tuple[EvidenceKind, bytes], ...]:
        """The trusted roots (DER) by kind."""
        ...

    def collateral_for(self, evidence: Evidence, now: int, /) -> Collateral:
        """Roots, and the documents for this piece of evidence; for kinds that need none, roots alone.

        Raises:
            UnavailableError: the source is away, try again. VerificationError: there is no such document
            (``collateral-missing``), or it is over and nobody has a newer one (``collateral-expired``).
            DecodeError: the evidence does not say what it needs.
        """
        ...


def simulated_collateral(roots: Iterable[bytes]) -> Collateral:
    """Collateral that trusts these simulated roots and nothing else."""
    return Collateral(tuple((EvidenceKind.SIMULATED, root) for root in roots))


def build_documents(documents: Iterable[Document]) -> bytes:
    """Deterministic CBOR: an array of ``[kind, name, content]``. Roots are not in it: nobody takes them from a file."""
    return build_cbor([[item.kind.value, item.name, item.content] for item in documents])


def parse_documents(encoded: bytes) -> tuple[Document, ...]:
    """Read what ``build_documents`` writes.

    Raises:
        TooLarge: over 512 KiB. DecodeError: another form, or a kind that is not known.
    """
    if len(encoded) > MAX_COLLATERAL:
        raise TooLarge(f"collateral of {len(encoded)} bytes is over the cap of {MAX_COLLATERAL}")
    value = parse_cbor(encoded)
    if not isinstance(value, list):
        raise DecodeError("collateral is not an array of documents", code="collateral-malformed")
    documents = []
    for item in value:
        match item:
            case [str(kind), str(name), bytes(content)] if kind in set(EvidenceKind):
                documents.append(Document(EvidenceKind(kind), name, content))
            case _:
                raise DecodeError(
                    "a document of the collateral is not [kind, name, content]", code="collateral-malformed"
                )
    return tuple(documents)
