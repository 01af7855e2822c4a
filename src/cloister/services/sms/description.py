"""The SMS's operations, as ``/openapi.json`` tells them."""

from __future__ import annotations

from dataclasses import replace

from cloister.services.descriptions import (
    ADDRESS,
    ANY_OBJECT,
    COUNT,
    FAILURE,
    SIGNATURE,
    TEXT,
    WORD,
    Description,
    Operation,
    Schema,
    answer,
    exactly,
    list_of,
    nullable,
    with_members,
)

_WEB3 = {"secretAddress": ADDRESS}
_WEB2 = {"ownerAddress": ADDRESS}
_APP = {"app": ADDRESS}
_NAME = {"type": "string", "pattern": "^[0-9A-Za-z_-]{1,64}$"}
_REQUESTER = {"requester": ADDRESS, "name": _NAME}
_SECRET = answer({"type": "string", "maxLength": 4096}, "text/plain")
_DONE = {204: None}
_PROPERTIES: Schema = with_members(
    teeFramework={"enum": ["TDX"]},
    teeFrameworkVersion={"enum": ["v1"]},
    evidenceKinds=list_of(TEXT),
    warning=nullable(TEXT),
)
_FAILED_SECRET: Schema = {
    "anyOf": [FAILURE, exactly(data={"type": "null"}, error=list_of(TEXT), code=TEXT)],
    "description": "where the name is taken or the signer another, in the form of iExec's SMS",
}


def _look(name: str, parameters: dict[str, Schema]) -> Operation:
    return Operation(name, {204: None, 404: None}, parameters=parameters, text="Whether it is there.")


def _set(name: str, parameters: dict[str, Schema], *refusals: int) -> Operation:
    text = "The body is the secret as it is. Signed by the owner; a secret that is set stays as it is."
    return Operation(name, _DONE, (401, *refusals), _SECRET, parameters, "signature", text)


def _set_listed(name: str, parameters: dict[str, Schema], *refusals: int) -> Operation:
    """The two families whose 401 and 409 iExec's SMS gives in another form."""
    told = _set(name, parameters, *refusals)
    return replace(told, answers={**_DONE, 401: answer(_FAILED_SECRET), 409: answer(_FAILED_SECRET)})


def _erase(name: str, parameters: dict[str, Schema]) -> Operation:
    return Operation(name, _DONE, (401, 403, 404, 409), parameters=parameters, security="request")


_TEE_REFUSED = exactly(data={"type": "null"}, error=TEXT)

SMS = Description(
    {
        ("HEAD", "/secrets/web3"): _look("hasDataKey", _WEB3),
        ("POST", "/secrets/web3"): _set("setDataKey", _WEB3, 404, 409),
        ("DELETE", "/secrets/web3"): _erase("eraseDataKey", _WEB3),
        ("HEAD", "/secrets/web2"): _look("hasAccountSecret", _WEB2),
        ("POST", "/secrets/web2"): _set("setAccountSecret", _WEB2, 409),
        ("PUT", "/secrets/web2"): _set("replaceAccountSecret", _WEB2, 404, 409),
        ("DELETE", "/secrets/web2"): _erase("eraseAccountSecret", _WEB2),
        ("HEAD", "/apps/{app}/secrets"): _look("hasAppSecret", _APP),
        ("POST", "/apps/{app}/secrets"): _set_listed("setAppSecret", _APP, 404),
        ("DELETE", "/apps/{app}/secrets"): _erase("eraseAppSecret", _APP),
        ("HEAD", "/requesters/{requester}/secrets/{name}"): _look("hasRequesterSecret", _REQUESTER),
        ("POST", "/requesters/{requester}/secrets/{name}"): _set_listed("setRequesterSecret", _REQUESTER),
        ("DELETE", "/requesters/{requester}/secrets/{name}"): _erase("eraseRequesterSecret", _REQUESTER),
        ("GET", "/tee/framework"): Operation("teeFramework", {200: answer({"enum": ["TDX"]})}),
        ("GET", "/tee/properties/{framework}"): Operation(
            "teeProperties", {200: answer(_PROPERTIES), 409: answer(exactly(error=TEXT))}
        ),
        ("GET", "/tee/properties/{framework}/{version}"): Operation(
            "teePropertiesOfVersion",
            {200: answer(_PROPERTIES), 404: answer(exactly(error=TEXT)), 409: answer(exactly(error=TEXT))},
        ),
        ("POST", "/tee/challenges/{task_id}"): Operation(
            "teeChallenge",
            {200: answer(ADDRESS, "text/plain")},
            (401,),
            parameters={"task_id": WORD},
            security="signature",
            text="The enclave challenge of a task, for its scheduler.",
        ),
        ("POST", "/tee/sessions"): Operation(
            "teeSession",
            {
                200: answer(exactly(data=exactly(sessionId=TEXT, secretProvisioningUrl=TEXT), error={"type": "null"})),
                401: answer(_TEE_REFUSED),
                500: answer(_TEE_REFUSED),
            },
            (404,),
            answer(
                with_members(
                    chainTaskId=WORD,
                    workerWallet=ADDRESS,
                    enclaveChallenge=ADDRESS,
                    signature=with_members(value=SIGNATURE),
                )
            ),
            security="signature",
            text="Where the enclave of a task goes to be attested; iExec's words where it is refused.",
        ),
        ("POST", "/enclave/v1/nonces"): Operation(
            "issueNonce", {200: answer(exactly(nonce=WORD, expires_at=COUNT))}, text="A nonce for one session."
        ),
        ("POST", "/enclave/v1/sessions"): Operation(
            "openSession",
            {
                200: answer(exactly(sealed=TEXT, authorization=SIGNATURE, sms=ADDRESS, signature=SIGNATURE)),
                **{
                    status: answer(
                        {
                            "type": "object",
                            "properties": {**FAILURE["properties"], "final": {"type": "boolean"}},
                            "required": ["error", "code", "hint"],
                            "additionalProperties": False,
                        }
                    )
                    for status in (400, 401, 403, 404, 409, 413, 503)
                },
            },
            body=answer(
                with_members(
                    request=ANY_OBJECT,
                    scheduler_authorization=SIGNATURE,
                    match_transaction=WORD,
                    dataset_order=nullable(ANY_OBJECT),
                    collateral=nullable(TEXT),
                )
            ),
            text="Keys for an enclave whose evidence holds; ``final`` says whether asking again is of no use.",
        ),
        ("GET", "/enclave/v1/identity"): Operation(
            "identity", {200: answer(exactly(sms=ADDRESS, chain_id=COUNT, hub=ADDRESS, version=COUNT))}
        ),
        ("POST", "/enclave/v1/countersignatures"): Operation(
            "countersignReceipt",
            {200: answer(exactly(countersignature=TEXT))},
            (403, 413),
            answer(with_members(task_id=WORD, enclave_challenge=ADDRESS, receipt_digest=WORD, signature=SIGNATURE)),
            text="The SMS's countersignature over a receipt, for the enclave that it released to. One receipt a session.",
        ),
        ("GET", "/log/v1/head"): Operation(
            "logHead",
            {
                200: answer(
                    exactly(
                        chain_id=COUNT,
                        hub=ADDRESS,
                        sms=ADDRESS,
                        size=COUNT,
                        root=WORD,
                        timestamp=COUNT,
                        signature=SIGNATURE,
                    )
                )
            },
            text="Size and root of the transparency log (RFC 9162), signed by the SMS's identity.",
        ),
        ("GET", "/log/v1/entries"): Operation(
            "logEntries",
            {200: answer(exactly(start=COUNT, entries=list_of(TEXT)))},
            parameters={"start": COUNT, "end": COUNT},
            text="At most 256 entries, each as the text that was hashed: what was released or refused, to whom, when.",
        ),
        ("GET", "/log/v1/inclusion"): Operation(
            "logInclusion",
            {200: answer(exactly(path=list_of(WORD)))},
            (404,),
            parameters={"index": COUNT, "size": COUNT},
            text="The proof that an entry is in the log of that size.",
        ),
        ("GET", "/log/v1/consistency"): Operation(
            "logConsistency",
            {200: answer(exactly(path=list_of(WORD)))},
            (404,),
            parameters={"first": COUNT, "second": COUNT},
            text="The proof that the log of the second size begins with that of the first.",
        ),
        ("PUT", "/policies/{digest}"): Operation(
            "putPolicy",
            _DONE,
            (401, 403, 409),
            answer(ANY_OBJECT),
            {"digest": WORD},
            "request",
            "Keep an access policy under its hash.",
        ),
        ("GET", "/policies/{digest}"): Operation(
            "getPolicy", {200: answer(ANY_OBJECT)}, (404,), parameters={"digest": WORD}
        ),
        ("PUT", "/policies/data/{dataset}"): Operation(
            "putDataPolicy",
            _DONE,
            (403, 404, 409),
            answer(with_members(policy=nullable(ANY_OBJECT), version=COUNT, issued_at=COUNT, signature=TEXT)),
            {"dataset": ADDRESS},
            text="Hardware rules for every release of the data's key, signed by its owner (EIP-712); null lifts them.",
        ),
        ("GET", "/policies/data/{dataset}"): Operation(
            "getDataPolicy",
            {
                200: answer(
                    exactly(
                        dataset=ADDRESS,
                        owner=ADDRESS,
                        hash=WORD,
                        policy=nullable(ANY_OBJECT),
                        version=COUNT,
                        issued_at=COUNT,
                        signature=TEXT,
                    )
                )
            },
            (404,),
            parameters={"dataset": ADDRESS},
            text="What the data's present owner demands of every enclave.",
        ),
        ("GET", "/data/{address}/releases"): Operation(
            "listReleases",
            {200: answer(exactly(releases=list_of(ANY_OBJECT), more={"type": "boolean"}))},
            (401, 403, 404),
            parameters={"address": ADDRESS},
            security="request",
            text="What the SMS released or refused for a dataset, for its owner.",
        ),
    }
)
