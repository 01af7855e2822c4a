"""The result proxy's operations, as ``/openapi.json`` tells them."""

from __future__ import annotations

from cloister.services.descriptions import (
    ADDRESS,
    TEXT,
    TYPED_DATA,
    WORD,
    Description,
    Operation,
    answer,
    list_of,
    with_members,
)

_TOKEN = {200: answer(TEXT, "text/plain")}
_CHAIN = {"type": "string", "pattern": "^[0-9]{1,20}$"}

RESULT_PROXY = Description(
    {
        ("POST", "/v1/results/token"): Operation(
            "uploadToken",
            _TOKEN,
            (401,),
            answer(with_members(chainTaskId=WORD, workerWallet=ADDRESS, enclaveChallenge=ADDRESS)),
            security="signature",
        ),
        ("POST", "/v1/results"): Operation(
            "uploadResult",
            {200: answer({"type": "string", "pattern": "^/ipfs/"}, "text/plain")},
            (401, 403, 404, 409),
            answer(
                with_members(
                    chainTaskId=WORD,
                    zip={"anyOf": [TEXT, list_of({"type": "integer", "minimum": 0, "maximum": 255})]},
                    deterministHash=WORD,
                    enclaveSignature=TEXT,
                )
            ),
            security="token",
        ),
        ("HEAD", "/v1/results/{task_id}"): Operation("hasResult", {204: None, 404: None}, (401,), security="token"),
        ("GET", "/v1/results/{task_id}/ipfshash"): Operation("resultCid", _TOKEN, (404,)),
        ("GET", "/results/challenge"): Operation(
            "resultsChallenge", {200: answer(TYPED_DATA)}, parameters={"chainId": _CHAIN, "address": ADDRESS}
        ),
        ("POST", "/results/login"): Operation(
            "resultsLogin",
            _TOKEN,
            (401,),
            answer({"type": "string", "maxLength": 1024}, "text/plain"),
            {"chainId": _CHAIN},
            text="The body is ``<hash>_<signature>_<address>`` of a challenge.",
        ),
    }
)
