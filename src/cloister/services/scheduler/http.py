"""The scheduler's paths: ours for workers under ``/scheduler/v1``, iExec's for everybody under ``/tasks`` (reference
3.6).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Path, Query, Request

from cloister.clients.scheduler import LOG_CHARACTERS, Outcome, Stage
from cloister.errors import UnavailableError
from cloister.protocol.authentication import AuthenticatedRequest
from cloister.protocol.codec import Address, Bytes32, parse_base64, parse_hex, to_hex
from cloister.protocol.progress import UPDATE_CAP
from cloister.services.part import body_cap
from cloister.services.scheduler.schemas import (
    AuthorizationAnswer,
    AuthorizationRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    LeaseRequest,
    LeasesAnswer,
    LogsRequest,
    OutcomeRequest,
    ProgressAnswer,
    ProgressRequest,
    ProgressTold,
)

if TYPE_CHECKING:
    from cloister.services.authentication import RequestAuthenticator
    from cloister.services.scheduler.service import SchedulerService

MOST_POLLS = 2000
"""How many workers may wait at a time."""

_SECOND_LOOK = 1.0
"""A replica of ours may have written the task: the bell of this process did not ring for that."""

_SMALL = 64 * 1024
_LOGS_BODY = 12 * 4 * LOG_CHARACTERS
"""JSON may spell one character in six bytes, and two streams come."""

LeasePath = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
AfterEntry = Annotated[int, Query(ge=0, lt=2**31)]
TaskPath = Annotated[str, Path(pattern="^0x[0-9a-fA-F]{64}$")]


def build_router(service: SchedulerService, authenticator: RequestAuthenticator) -> APIRouter:
    """The routes of one scheduler."""
    router = APIRouter(tags=["scheduler"])
    _add_worker_routes(router, service, authenticator)
    _add_public_routes(router, service)
    return router


def _add_worker_routes(router: APIRouter, service: SchedulerService, authenticator: RequestAuthenticator) -> None:
    """Only the long poll is a coroutine: as a function it would hold a thread while it waits."""

    async def _worker(request: Request) -> Address:
        proven: AuthenticatedRequest = await authenticator(request)
        return service.check_worker(proven.address)

    caller = Depends(_worker)

    @router.post("/scheduler/v1/leases")
    @body_cap(_SMALL)
    async def take_leases(request: Request, wanted: LeaseRequest, worker: Address = caller) -> LeasesAnswer:
        """Lease tasks, waiting for one as long as asked."""
        deadline = time.monotonic() + wanted.wait_seconds
        if service.bell.listeners >= MOST_POLLS:
            raise UnavailableError("too many workers are waiting", hint="try again in a moment")
        with service.bell.listen() as ear:
            while True:
                # A lease given to a caller who hung up would have to expire first.
                if await request.is_disconnected():
                    return LeasesAnswer(leases=[])
                leases = await anyio.to_thread.run_sync(
                    lambda: service.take(
                        worker, Address(wanted.workerpool), capacity=wanted.capacity, holding=wanted.holding
                    )
                )
                left = deadline - time.monotonic()
                if leases or left <= 0:
                    return LeasesAnswer(leases=[lease.to_json() for lease in leases])
                await ear.wait(min(left, _SECOND_LOOK))

    @router.post("/scheduler/v1/leases/{lease_id}/heartbeat")
    @body_cap(_SMALL)
    def beat(lease_id: LeasePath, told: HeartbeatRequest, worker: Address = caller) -> HeartbeatAnswer:
        """Keep a lease alive."""
        answer = service.beat(
            lease_id,
            worker,
            told.status,
            detail=told.detail,
            results=told.results,
            results_callback=parse_hex(told.results_callback) if told.results_callback else b"",
        )
        return HeartbeatAnswer(expires_at=answer.expires_at, abort=answer.abort)

    @router.post("/scheduler/v1/leases/{lease_id}/authorization")
    @body_cap(_SMALL)
    def authorize(lease_id: LeasePath, told: AuthorizationRequest, worker: Address = caller) -> AuthorizationAnswer:
        """Sign worker, task and enclave key with the pool owner's key."""
        signature = service.authorize(lease_id, worker, Address(told.enclave_challenge))
        return AuthorizationAnswer(signature=to_hex(signature))

    @router.post("/scheduler/v1/leases/{lease_id}/logs")
    @body_cap(_LOGS_BODY)
    def keep_logs(lease_id: LeasePath, told: LogsRequest, worker: Address = caller) -> dict[str, bool]:
        """Keep an app's streams."""
        service.keep_logs(lease_id, worker, told.stdout, told.stderr, exit_code=told.exit_code)
        return {"ok": True}

    @router.post("/scheduler/v1/leases/{lease_id}/progress")
    @body_cap(_SMALL)
    def keep_progress(lease_id: LeasePath, told: ProgressRequest, worker: Address = caller) -> dict[str, bool]:
        """Keep an update of an app's progress; only the newest are kept."""
        service.keep_progress(lease_id, worker, told.number, parse_base64("update", told.update, cap=UPDATE_CAP))
        return {"ok": True}

    @router.post("/scheduler/v1/leases/{lease_id}/outcome")
    @body_cap(_SMALL)
    def report(lease_id: LeasePath, told: OutcomeRequest, worker: Address = caller) -> dict[str, bool]:
        """End a lease."""
        outcome = Outcome(
            status=told.status,
            cause=told.cause,
            message=told.message,
            transaction=Bytes32(told.transaction) if told.transaction else None,
            result_digest=Bytes32(told.result_digest) if told.result_digest else None,
            results=told.results,
            results_callback=parse_hex(told.results_callback) if told.results_callback else b"",
            refusal=told.refusal,
            stages=tuple(Stage(stage.status, stage.at) for stage in told.stages),
        )
        service.report(lease_id, worker, outcome, exit_code=told.exit_code)
        return {"ok": True}


def _add_public_routes(router: APIRouter, service: SchedulerService) -> None:
    @router.get("/tasks/logs/challenge")
    def challenge(chainId: str | None = None, address: str | None = None) -> dict[str, object]:  # noqa: N803
        """A login challenge (typed data)."""
        return service.build_challenge(chainId, address)

    @router.get("/tasks/{task_id}")
    def task(task_id: TaskPath) -> dict[str, Any]:
        """The public state of a task."""
        return service.task(task_id)

    @router.get("/scheduler/v1/tasks/{task_id}/progress")
    def progress(task_id: TaskPath, after: AfterEntry = 0) -> ProgressAnswer:
        """The newest updates of an app's progress behind entry ``after``: sealed to the requester, or public as the result."""
        return ProgressAnswer(progress=[ProgressTold(**entry) for entry in service.progress(task_id, after=after)])

    @router.get("/tasks/{task_id}/logs")
    def logs(task_id: TaskPath, authorization: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        """An app's streams, for the requester."""
        return service.logs(task_id, authorization)
