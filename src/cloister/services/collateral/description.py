"""The collateral service's operations, as ``/openapi.json`` tells them."""

from __future__ import annotations

from cloister.services.descriptions import (
    ADDRESS,
    ANY_OBJECT,
    COUNT,
    SIGNATURE,
    TEXT,
    Description,
    Operation,
    answer,
    exactly,
    list_of,
    nullable,
)

_CBOR = "application/cbor"
_BYTES = {"type": "string", "format": "binary"}
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_WHOLE = {"type": "integer"}
_PIECE = exactly(
    family=TEXT,
    kind=TEXT,
    key=TEXT,
    root=_HASH,
    issued=_WHOLE,
    next_update=_WHOLE,
    days_left={"type": "number"},
    expired={"type": "boolean"},
    evaluation_number=nullable(COUNT),
    crl_number=nullable(_WHOLE),
    digest=_HASH,
    source=TEXT,
    came_at=_WHOLE,
)
_SOURCE = exactly(name=TEXT, last_success=nullable(_WHOLE), last_failure=nullable(_WHOLE), failure=nullable(TEXT))

COLLATERAL = Description(
    {
        ("GET", "/collateral/v1/status"): Operation(
            "collateralStatus",
            {200: answer(exactly(now=_WHOLE, documents=list_of(_PIECE), expired=COUNT, sources=list_of(_SOURCE)))},
        ),
        ("GET", "/collateral/v1/documents"): Operation(
            "collateralDocuments",
            {200: answer(_BYTES, _CBOR)},
            (403,),
            parameters={
                "kind": {"type": "string", "enum": ["tdx", "sgx", "snp", "snp-vtpm", "tpm"]},
                "fmspc": {"type": "string", "maxLength": 12},
                "ca": {"type": "string", "enum": ["", "platform", "processor"]},
                "product": {"type": "string", "maxLength": 16},
                "chip": {"type": "string", "maxLength": 128},
                "tcb": {"type": "string", "maxLength": 16},
            },
            text="Deterministic CBOR: an array of [kind, name, content]. Nothing in it is over. Hex is lower case: 6 bytes of "
            "``fmspc``, 64 of ``chip`` (Turin: 8), 8 of ``tcb``; ``kind`` says which of them are needed.",
        ),
        ("GET", "/collateral/v1/bundle"): Operation(
            "collateralBundle",
            {200: answer(_BYTES, _CBOR)},
            text="Everything that is kept and holds, for ``cloister collateral import`` on a machine without a network.",
        ),
        ("GET", "/collateral/v1/reference-values"): Operation(
            "signedReferenceValues",
            {
                200: answer(
                    exactly(
                        version=COUNT,
                        chain_id=COUNT,
                        hub=ADDRESS,
                        sms=ADDRESS,
                        issued_at=COUNT,
                        values=ANY_OBJECT,
                        signature=SIGNATURE,
                    )
                )
            },
            (404,),
        ),
    }
)
