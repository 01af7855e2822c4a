"""The scheduler's operations, as ``/openapi.json`` tells them."""

from __future__ import annotations

from cloister.services.descriptions import (
    ADDRESS,
    COUNT,
    TEXT,
    TYPED_DATA,
    WORD,
    Description,
    Operation,
    answer,
    exactly,
    list_of,
    nullable,
    with_members,
)

_HISTORY = list_of(with_members(status=TEXT, date=TEXT))
_OK = {200: answer(exactly(ok={"type": "boolean"}))}


def _worker(name: str, answers: dict[int, object] | None = None, *refusals: int) -> Operation:
    return Operation(name, answers, (401, 403, *refusals), security="request")  # type: ignore[arg-type]


SCHEDULER = Description(
    {
        ("POST", "/scheduler/v1/leases"): _worker("takeLeases", None, 404),
        ("POST", "/scheduler/v1/leases/{lease_id}/heartbeat"): _worker("keepLease", None, 404, 409),
        ("POST", "/scheduler/v1/leases/{lease_id}/authorization"): _worker("authorizeEnclave", None, 404, 409),
        ("POST", "/scheduler/v1/leases/{lease_id}/logs"): _worker("keepLogs", dict(_OK), 404, 409),
        ("POST", "/scheduler/v1/leases/{lease_id}/progress"): _worker("keepProgress", dict(_OK), 404),
        ("POST", "/scheduler/v1/leases/{lease_id}/outcome"): _worker("endLease", dict(_OK), 404, 409),
        ("GET", "/scheduler/v1/tasks/{task_id}/progress"): Operation("getTaskProgress", None, (404,)),
        ("GET", "/tasks/logs/challenge"): Operation(
            "logsChallenge",
            {200: answer(TYPED_DATA)},
            parameters={"chainId": {"type": "string", "pattern": "^[0-9]{1,20}$"}, "address": ADDRESS},
        ),
        ("GET", "/tasks/{task_id}"): Operation(
            "getTask",
            {
                200: answer(
                    with_members(
                        chainTaskId=WORD,
                        chainDealId=WORD,
                        taskIndex=COUNT,
                        currentStatus=TEXT,
                        dateStatusList=_HISTORY,
                        replicates=list_of(
                            with_members(
                                walletAddress=ADDRESS,
                                appExitCode=nullable({"type": "integer"}),
                                currentStatus=TEXT,
                                statusUpdateList=_HISTORY,
                            )
                        ),
                    )
                )
            },
            (404,),
        ),
        ("GET", "/tasks/{task_id}/logs"): Operation(
            "getTaskLogs",
            {
                200: answer(
                    exactly(
                        chainTaskId=WORD,
                        computeLogsList=list_of(exactly(walletAddress=ADDRESS, stdout=TEXT, stderr=TEXT)),
                    )
                )
            },
            (401, 403, 404),
            security="login",
        ),
    }
)
