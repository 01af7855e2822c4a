"""The SMS over HTTP: iExec's REST as its clients speak it (reference 3.2), and the enclave's own calls."""

# Annotations are evaluated here, not kept as text: FastAPI reads dependencies of local names out of them.
from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from cloister.errors import CloisterError, Conflict, NotFound, Unauthenticated, quoted
from cloister.protocol.authentication import AuthenticatedRequest
from cloister.protocol.codec import SAFE_INTEGER_MAX, Address, Bytes32, build_base64, parse_json
from cloister.protocol.countersigning import REQUEST_CAP, parse_countersign_request
from cloister.protocol.data_policies import PUT_CAP
from cloister.protocol.policies import POLICY_CAP
from cloister.protocol.sessions import CALL_CAP, FINAL_REFUSALS, parse_session_call
from cloister.services.authentication import RequestAuthenticator
from cloister.services.database import Database
from cloister.services.descriptions import Description
from cloister.services.failures import describe_error
from cloister.services.part import body_cap
from cloister.services.sms.description import SMS
from cloister.services.sms.policies import DataPolicyService
from cloister.services.sms.receipts import ReceiptService
from cloister.services.sms.schemas import NonceRequest
from cloister.services.sms.service import SecretService, requester_secret_name, web2_secret_name
from cloister.services.sms.sessions import SessionService
from cloister.services.sms.store import SecretStore
from cloister.services.sms.tee import AUTHORIZATION_CAP, TeeRefused, TeeService
from cloister.services.sms.transparency import TransparencyLog
from cloister.services.sms.vault import SecretKind, SecretName

FRAMEWORK = "TDX"
_SECRET_BODY_CAP = 64 * 1024
"""Above the 4,096 bytes of a secret, so that the service answers an overlong one with its own words."""
_RELEASES_PAGE = 200
Place = Annotated[int, Query(ge=0, le=SAFE_INTEGER_MAX)]
"""A place in the log, or its size."""


class SmsPart:
    """The SMS as a part of an application."""

    name = "sms"

    def __init__(
        self,
        *,
        database: Database,
        store: SecretStore,
        secrets: SecretService,
        sessions: SessionService,
        tee: TeeService,
        transparency: TransparencyLog,
        receipts: ReceiptService,
        data_policies: DataPolicyService,
        authenticator: RequestAuthenticator,
    ) -> None:
        self._database = database
        self._store = store
        self._secrets = secrets
        self._sessions = sessions
        self._tee = tee
        self._data_policies = data_policies
        self._transparency = transparency
        self._receipts = receipts
        self._authenticator = authenticator

    def start(self) -> None:
        self._database.upgrade("sms")
        self._authenticator.start()
        self._store.start()

    def stop(self) -> None:
        """Nothing runs in the background."""

    def check_ready(self) -> None:
        self._database.check_ready()
        self._sessions.check_ready()

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return SMS

    def router(self) -> APIRouter:
        router = APIRouter(tags=["sms"])
        self._add_account_secrets(router)
        self._add_app_and_requester_secrets(router)
        self._add_tee(router)
        self._add_enclave(router)
        self._add_receipts(router)
        self._add_records(router)
        self._add_data_policies(router)
        self._add_log(router)
        return router

    def _add_account_secrets(self, router: APIRouter) -> None:
        service, signed = self._secrets, self._authenticator

        @router.head("/secrets/web3")
        def has_web3(secretAddress: str) -> Response:  # noqa: N803 - the wire's name
            return _presence(service.exists(SecretName(SecretKind.DATASET, Address(secretAddress))))

        @router.post("/secrets/web3")
        @body_cap(_SECRET_BODY_CAP)
        async def create_web3(request: Request, secretAddress: str) -> Response:  # noqa: N803
            return await self._set(request, SecretName(SecretKind.DATASET, Address(secretAddress)))

        @router.delete("/secrets/web3")
        def erase_web3(
            secretAddress: str,  # noqa: N803
            caller: Annotated[AuthenticatedRequest, Depends(signed)],
        ) -> Response:
            service.erase(SecretName(SecretKind.DATASET, Address(secretAddress)), caller.address)
            return _done()

        @router.head("/secrets/web2")
        def has_web2(ownerAddress: str, secretName: str) -> Response:  # noqa: N803
            return _presence(service.exists(web2_secret_name(Address(ownerAddress), secretName)))

        @router.post("/secrets/web2")
        @body_cap(_SECRET_BODY_CAP)
        async def create_web2(request: Request, ownerAddress: str, secretName: str) -> Response:  # noqa: N803
            return await self._set(request, web2_secret_name(Address(ownerAddress), secretName))

        @router.put("/secrets/web2")
        @body_cap(_SECRET_BODY_CAP)
        async def update_web2(request: Request, ownerAddress: str, secretName: str) -> Response:  # noqa: N803
            return await self._set(request, web2_secret_name(Address(ownerAddress), secretName), replace=True)

        @router.delete("/secrets/web2")
        def erase_web2(
            ownerAddress: str,  # noqa: N803
            secretName: str,  # noqa: N803
            caller: Annotated[AuthenticatedRequest, Depends(signed)],
        ) -> Response:
            service.erase(web2_secret_name(Address(ownerAddress), secretName), caller.address)
            return _done()

    def _add_app_and_requester_secrets(self, router: APIRouter) -> None:
        service, signed = self._secrets, self._authenticator

        @router.head("/apps/{app}/secrets")
        def has_app(app: str) -> Response:
            return _presence(service.exists(SecretName(SecretKind.APP, Address(app))))

        @router.post("/apps/{app}/secrets")
        @body_cap(_SECRET_BODY_CAP)
        async def create_app(request: Request, app: str) -> Response:
            return await self._set(request, SecretName(SecretKind.APP, Address(app)))

        @router.delete("/apps/{app}/secrets")
        def erase_app(app: str, caller: Annotated[AuthenticatedRequest, Depends(signed)]) -> Response:
            service.erase(SecretName(SecretKind.APP, Address(app)), caller.address)
            return _done()

        @router.head("/requesters/{requester}/secrets/{name}")
        def has_requester(requester: str, name: str) -> Response:
            return _presence(service.exists(requester_secret_name(Address(requester), name)))

        @router.post("/requesters/{requester}/secrets/{name}")
        @body_cap(_SECRET_BODY_CAP)
        async def create_requester(request: Request, requester: str, name: str) -> Response:
            return await self._set(request, requester_secret_name(Address(requester), name))

        @router.delete("/requesters/{requester}/secrets/{name}")
        def erase_requester(
            requester: str, name: str, caller: Annotated[AuthenticatedRequest, Depends(signed)]
        ) -> Response:
            service.erase(requester_secret_name(Address(requester), name), caller.address)
            return _done()

    def _add_tee(self, router: APIRouter) -> None:
        tee = self._tee

        @router.get("/tee/framework")
        async def framework() -> str:
            return FRAMEWORK

        @router.get("/tee/properties/{framework}")
        async def properties(framework: str) -> JSONResponse:
            return self._properties(framework, None)

        @router.get("/tee/properties/{framework}/{version}")
        async def versioned_properties(framework: str, version: str) -> JSONResponse:
            return self._properties(framework, version)

        @router.post("/tee/challenges/{task_id}")
        def challenge(task_id: str, request: Request) -> PlainTextResponse:
            address = tee.challenge(task_id, request.headers.get("authorization"))
            return PlainTextResponse(address.lower())

        @router.post("/tee/sessions")
        @body_cap(AUTHORIZATION_CAP)
        async def session(request: Request) -> JSONResponse:
            body, header = await request.body(), request.headers.get("authorization")
            try:
                opened = await run_sync(partial(tee.open_session, body, header, origin=str(request.base_url)))
            except TeeRefused as refused:
                error = refused.error
                return JSONResponse({"data": None, "error": error.value}, status_code=error.http_status)
            return JSONResponse({"data": opened.to_json(), "error": None})

    def _add_enclave(self, router: APIRouter) -> None:
        sessions = self._sessions

        @router.post("/enclave/v1/nonces")
        def issue_nonce(body: NonceRequest) -> dict[str, object]:
            return sessions.issue_nonce(Bytes32(body.task_id)).to_json()

        @router.post("/enclave/v1/sessions")
        @body_cap(CALL_CAP)
        async def open_session(request: Request) -> JSONResponse:
            body = await request.body()
            # The protocol's own parser is stricter than a schema: no duplicate keys, no unknown ones, caps on every
            # value.
            call = parse_session_call(parse_json(body, cap=CALL_CAP))
            try:
                answer = await run_sync(sessions.open_session, call)
            except CloisterError as error:
                return _refusal(error)
            return JSONResponse(answer.to_json())

        @router.get("/enclave/v1/identity")
        def identity() -> dict[str, object]:
            return sessions.identity()

    def _add_receipts(self, router: APIRouter) -> None:
        receipts = self._receipts

        @router.post("/enclave/v1/countersignatures")
        @body_cap(REQUEST_CAP)
        async def countersign(request: Request) -> dict[str, object]:
            asked = parse_countersign_request(parse_json(await request.body(), cap=REQUEST_CAP))
            return {"countersignature": build_base64(await run_sync(receipts.countersign, asked))}

    def _add_log(self, router: APIRouter) -> None:
        transparency = self._transparency

        @router.get("/log/v1/head")
        def head() -> dict[str, object]:
            return transparency.head()

        @router.get("/log/v1/entries")
        def entries(start: Place, end: Place) -> dict[str, object]:
            return transparency.entries(start, end)

        @router.get("/log/v1/inclusion")
        def inclusion(index: Place, size: Place) -> dict[str, object]:
            return transparency.inclusion(index, size)

        @router.get("/log/v1/consistency")
        def consistency(first: Place, second: Place) -> dict[str, object]:
            return transparency.consistency(first, second)

    def _add_records(self, router: APIRouter) -> None:
        sessions, signed = self._sessions, self._authenticator

        @router.put("/policies/{digest}")
        @body_cap(POLICY_CAP)
        async def put_policy(
            request: Request, digest: str, _caller: Annotated[AuthenticatedRequest, Depends(signed)]
        ) -> Response:
            body = await request.body()
            await run_sync(sessions.put_policy, Bytes32(digest), body)
            return _done()

        @router.get("/policies/{digest}")
        def get_policy(digest: str) -> Response:
            body = sessions.policy(Bytes32(digest))
            if body is None:
                raise NotFound(f"no policy has the hash {quoted(digest)}")
            return Response(body, media_type="application/json")

        @router.get("/data/{address}/releases")
        def releases(
            address: str,
            caller: Annotated[AuthenticatedRequest, Depends(signed)],
            after: Annotated[int, Query(ge=0, le=2**62)] = 0,
        ) -> dict[str, object]:
            dataset = Address(address)
            self._secrets.check_dataset_owner(dataset, caller.address)
            rows = sessions.releases(dataset, after=after, limit=_RELEASES_PAGE)
            return {"releases": rows, "more": len(rows) == _RELEASES_PAGE}

    def _add_data_policies(self, router: APIRouter) -> None:
        policies = self._data_policies

        @router.put("/policies/data/{dataset}")
        @body_cap(PUT_CAP)
        async def put_data_policy(request: Request, dataset: str) -> Response:
            body = await request.body()
            await run_sync(policies.put, Address(dataset), body)
            return _done()

        @router.get("/policies/data/{dataset}")
        def get_data_policy(dataset: str) -> dict[str, object]:
            return policies.show(Address(dataset))

    async def _set(self, request: Request, name: SecretName, *, replace: bool = False) -> Response:
        """Set or replace a secret from the raw body."""
        value, header = await request.body(), request.headers.get("authorization")
        action = self._secrets.replace if replace else self._secrets.create
        if name.kind in (SecretKind.APP, SecretKind.REQUESTER):
            try:
                await run_sync(action, name, value, header)
            except (Conflict, Unauthenticated) as error:
                # The shape that iExec's SMS gives to these two families.
                return JSONResponse(
                    {"data": None, "error": [error.message], "code": error.code}, status_code=error.http_status
                )
        else:
            await run_sync(action, name, value, header)
        return _done()

    def _properties(self, framework: str, version: str | None) -> JSONResponse:
        if framework.upper() != FRAMEWORK:
            return JSONResponse({"error": f"this SMS serves {FRAMEWORK}"}, status_code=409)
        if version is not None and version != "v1":
            return JSONResponse({"error": f"no properties for version {quoted(version)}"}, status_code=404)
        return JSONResponse(self._sessions.properties())


def _presence(exists: bool) -> Response:
    return Response(status_code=204 if exists else 404)


def _refusal(error: CloisterError) -> JSONResponse:
    """A refused session; ``final`` says whether asking again is of no use (``FINAL_REFUSALS``)."""
    failure = describe_error(error)
    if failure is None:
        raise error
    body = {
        "error": failure.message,
        "code": failure.code,
        "hint": failure.hint,
        "final": failure.code in FINAL_REFUSALS,
    }
    return JSONResponse(body, status_code=failure.status, headers=dict(failure.headers))


def _done() -> Response:
    return Response(status_code=204)
