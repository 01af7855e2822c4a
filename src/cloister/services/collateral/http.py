"""The collateral service over HTTP. Only reading: what is taken in comes from the operator or from a vendor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from prometheus_client.registry import CollectorRegistry
from starlette.responses import Response

from cloister.attestation.collateral import build_documents
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.pieces import Need, family_of
from cloister.errors import InputError, NotFound, quoted
from cloister.services.collateral.description import COLLATERAL
from cloister.services.collateral.refreshing import Refresher
from cloister.services.collateral.service import CollateralService
from cloister.services.collateral.status import CollateralMetrics, describe_service
from cloister.services.database import Database
from cloister.services.descriptions import Description

_CBOR: Final = "application/cbor"
_Word = Annotated[str, Query(max_length=256)]


class CollateralPart:
    """The collateral service as a part of an application."""

    name = "collateral"

    def __init__(
        self,
        *,
        database: Database,
        service: CollateralService,
        refresher: Refresher,
        reference: Callable[[], Mapping[str, Any]] | None,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self.service = service
        self._refresher = refresher
        self._reference = reference
        self._clock = clock

    def prepare(self) -> None:
        """Bring the tables up to date: enough for ``service`` to be used without serving."""
        self._database.upgrade("collateral")

    def start(self) -> None:
        """Bring the tables up to date, take the bundle in, begin to renew."""
        self.prepare()
        self._refresher.start()

    def stop(self) -> None:
        """Stop renewing."""
        self._refresher.stop()

    def check_ready(self) -> None:
        """Return when the database answers; collateral that is over is told by status and metrics. Raises: UnavailableError."""
        self._database.check_ready()

    def register_metrics(self, registry: CollectorRegistry) -> None:
        """Add the gauges."""
        registry.register(CollateralMetrics(self.service, self._clock))

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return COLLATERAL

    def router(self) -> APIRouter:
        """The four documents."""
        router = APIRouter(prefix="/collateral/v1", tags=["collateral"])
        service = self.service

        @router.get("/status")
        def status() -> dict[str, object]:
            """What is kept, until when, and how the sources answered."""
            return describe_service(service, self._clock())

        @router.get("/documents")
        def documents(
            kind: _Word,
            fmspc: _Word = "",
            ca: _Word = "",
            product: _Word = "",
            chip: _Word = "",
            tcb: _Word = "",
            vlek: bool = False,
        ) -> Response:
            """The documents with which one kind of evidence of one platform is judged."""
            need = Need(_parse_kind(kind), fmspc=fmspc, ca=ca, product=product, chip=chip, tcb=tcb, vlek=vlek)
            return Response(build_documents(service.documents_for(need)), media_type=_CBOR)

        @router.get("/bundle")
        def bundle() -> Response:
            """Everything that is kept and holds."""
            return Response(service.bundle(), media_type=_CBOR)

        @router.get("/reference-values")
        def reference_values() -> Mapping[str, Any]:
            """The network's reference values, signed by its SMS."""
            if self._reference is None:
                raise NotFound("this service has no reference values to give")
            return self._reference()

        return router


def _parse_kind(text: str) -> EvidenceKind:
    try:
        kind = EvidenceKind(text)
    except ValueError as error:
        raise InputError(f"evidence kind {quoted(text)} is unknown") from error
    if family_of(kind) is None:
        raise InputError(f"{kind} evidence needs no collateral")
    return kind
