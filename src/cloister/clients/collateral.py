"""The collateral service's HTTP API, and the relying party's view of it: own roots, the service's documents."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol

from cloister.attestation.collateral import MAX_COLLATERAL, Collateral, parse_documents
from cloister.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.attestation.collateral import Document
    from cloister.attestation.evidence import Evidence, EvidenceKind
    from cloister.attestation.pieces import Need

STATUS_CAP: Final = 16 * 1024 * 1024
KEEP_SECONDS: Final = 30.0
"""How long documents are used again without asking: as long may a new revocation take to count."""
KEPT: Final = 256


class DocumentSource(Protocol):
    """Gives documents for a need. Implemented by ``CollateralClient``, and by the service itself in one process."""

    def documents_for(self, need: Need) -> tuple[Document, ...]:
        """Documents that hold now.

        Raises:
            VerificationError: ``collateral-missing`` or ``collateral-expired``. UnavailableError: try again.
        """
        ...


class CollateralClient:
    """Talks to one collateral service. Safe to share between threads.

    Every method raises ``UnavailableError`` when the service does not answer.
    """

    def __init__(self, base_url: str, *, timeout: float = 15.0) -> None:
        from cloister.transport import Http

        self._http = Http(base_url, timeout=timeout, max_response=STATUS_CAP)

    def documents_for(self, need: Need) -> tuple[Document, ...]:
        """See ``DocumentSource``."""
        from cloister.errors import Denied, VerificationError

        query = {
            "kind": str(need.kind),
            "fmspc": need.fmspc or None,
            "ca": need.ca or None,
            "product": need.product or None,
            "chip": need.chip or None,
            "tcb": need.tcb or None,
            "vlek": need.vlek or None,
        }
        try:
            answer = self._http.raw("GET", "/collateral/v1/documents", query=query, max_response=MAX_COLLATERAL)
        except Denied as error:
            raise VerificationError(error.message, code=error.code, hint=error.hint) from error
        return parse_documents(answer.body)

    def status(self) -> dict[str, Any]:
        """What is kept, until when, and how the sources answered."""
        return _object(self._http.json("GET", "/collateral/v1/status"))

    def bundle(self) -> bytes:
        """Everything that the service keeps and that holds, as ``attestation.bundle`` reads it. Nothing of it is proven."""
        from cloister.attestation.bundle import MAX_BUNDLE

        return self._http.raw("GET", "/collateral/v1/bundle", max_response=MAX_BUNDLE).body

    def reference_values(self) -> bytes:
        """The signed reference values, for ``attestation.reference.verify_reference``. Nothing of it is proven."""
        from cloister.attestation.reference import MAX_DOCUMENT

        return self._http.raw("GET", "/collateral/v1/reference-values", max_response=MAX_DOCUMENT).body


class SourcedCollateral:
    """A ``CollateralSource``: roots of one's own, documents from a service. Safe to share between threads.

    Documents are used again for ``keep_seconds``. Evidence of a kind without a root is not looked up: it will be refused.
    """

    def __init__(
        self,
        trust: Collateral,
        source: DocumentSource,
        *,
        keep_seconds: float = KEEP_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trust = trust
        self._source = source
        self._keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: OrderedDict[Need, tuple[float, tuple[Document, ...]]] = OrderedDict()

    @property
    def roots(self) -> tuple[tuple[EvidenceKind, bytes], ...]:
        """The trusted roots (DER) by kind."""
        return self._trust.roots

    def collateral_for(self, evidence: Evidence, _now: int) -> Collateral:
        """See ``CollateralSource``."""
        if not self._trust.roots_of(evidence.kind):
            return self._trust
        from cloister.attestation.needs import parse_need

        need = parse_need(evidence)
        return self._trust if need is None else self._trust.with_documents(self._documents_for(need))

    def _documents_for(self, need: Need) -> tuple[Document, ...]:
        now = self._monotonic()
        with self._lock:
            kept = self._kept.get(need)
        if kept is not None and now < kept[0] + self._keep_seconds:
            return kept[1]
        documents = self._source.documents_for(need)
        with self._lock:
            self._kept[need] = (now, documents)
            self._kept.move_to_end(need)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return documents


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError("the collateral service answered with something else than an object")
    return value
