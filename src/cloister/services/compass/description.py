"""Compass's operations, as ``/openapi.json`` tells them."""

from __future__ import annotations

from cloister.services.descriptions import ADDRESS, TEXT, Description, Operation, answer, exactly

_CHAIN = {"type": "string", "pattern": "^[0-9]{1,20}$"}

COMPASS = Description(
    {
        ("GET", "/{chain_id}/workerpools/{address}"): Operation(
            "findScheduler",
            {200: answer(exactly(apiUrl=TEXT))},
            (404,),
            parameters={"chain_id": _CHAIN, "address": ADDRESS},
        ),
        ("GET", "/{chain_id}/iapps/{name}"): Operation(
            "findApp", {200: answer(exactly(address=ADDRESS))}, (404,), parameters={"chain_id": _CHAIN}
        ),
    }
)
