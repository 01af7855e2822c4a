"""What workers send, as pydantic checks it at the edge: sizes capped, unknown members refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from cloister.clients.scheduler import LOG_CHARACTERS, REFUSAL_CAP, STAGES_CAP, WAIT_CAP, ReplicateStatus
from cloister.errors import CloisterError
from cloister.protocol.codec import Address, Bytes32, parse_base64, parse_hex
from cloister.protocol.progress import UPDATE_CAP, UPDATES_CAP


def _address(text: str) -> str:
    try:
        return Address(text)
    except CloisterError as error:
        raise ValueError(error.message) from None


def _bytes32(text: str) -> str:
    try:
        return Bytes32(text)
    except CloisterError as error:
        raise ValueError(error.message) from None


def _hex(text: str) -> str:
    try:
        parse_hex(text, cap=CALLBACK_CAP)
    except CloisterError as error:
        raise ValueError(error.message) from None
    return text


def _update(text: str) -> str:
    try:
        parse_base64("update", text, cap=UPDATE_CAP)
    except CloisterError as error:
        raise ValueError(error.message) from None
    return text


CALLBACK_CAP = 4096
"""Most bytes of callback data; the hub's own cap."""

AddressText = Annotated[str, Field(max_length=42), AfterValidator(_address)]
Bytes32Text = Annotated[str, Field(max_length=66), AfterValidator(_bytes32)]
HexText = Annotated[str, Field(max_length=2 + 2 * CALLBACK_CAP), AfterValidator(_hex)]
LeaseId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
ExitCode = Annotated[int, Field(ge=-(2**31), lt=2**31)]
UpdateText = Annotated[str, Field(min_length=4, max_length=4 * (UPDATE_CAP // 3 + 1)), AfterValidator(_update)]
ResultsText = Annotated[str, Field(min_length=1, max_length=1024)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Plain(_Strict):
    """Texts that a database keeps as they are: PostgreSQL's hold no NUL."""

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a text must not hold a NUL character")
        return value


class LeaseRequest(_Plain):
    """``POST /scheduler/v1/leases``."""

    workerpool: AddressText
    capacity: int = Field(ge=1, le=1000)
    wait_seconds: float = Field(default=0, ge=0, le=WAIT_CAP)
    holding: list[LeaseId] | None = Field(default=None, max_length=1000)


class HeartbeatRequest(_Plain):
    """``POST /scheduler/v1/leases/{id}/heartbeat``."""

    status: ReplicateStatus
    detail: str | None = Field(default=None, max_length=1000)
    results: ResultsText | None = None
    results_callback: HexText | None = None


class AuthorizationRequest(_Plain):
    """``POST /scheduler/v1/leases/{id}/authorization``."""

    enclave_challenge: AddressText


class LogsRequest(_Strict):
    """``POST /scheduler/v1/leases/{id}/logs``: more than is kept is taken and cut, so that no worker has to count."""

    stdout: str = Field(max_length=4 * LOG_CHARACTERS)
    stderr: str = Field(max_length=4 * LOG_CHARACTERS)
    exit_code: ExitCode | None = None


class ProgressRequest(_Plain):
    """``POST /scheduler/v1/leases/{id}/progress``."""

    number: int = Field(ge=1, le=UPDATES_CAP)
    update: UpdateText


class StageTold(_Strict):
    """One stage of an outcome."""

    status: ReplicateStatus
    at: float = Field(ge=0, le=2**40, allow_inf_nan=False)


class OutcomeRequest(_Plain):
    """``POST /scheduler/v1/leases/{id}/outcome``."""

    status: ReplicateStatus
    cause: str | None = Field(default=None, max_length=200)
    message: str | None = Field(default=None, max_length=2000)
    transaction: Bytes32Text | None = None
    result_digest: Bytes32Text | None = None
    results: ResultsText | None = None
    results_callback: HexText | None = None
    exit_code: ExitCode | None = None
    refusal: str | None = Field(default=None, max_length=REFUSAL_CAP)
    stages: list[StageTold] = Field(default=[], max_length=STAGES_CAP)


class LeasesAnswer(BaseModel):
    """Leases as ``cloister.clients.scheduler.Lease`` writes them."""

    leases: list[dict[str, Any]]


class HeartbeatAnswer(BaseModel):
    """Until when the lease lasts, in unix seconds, and whether to stop."""

    expires_at: int
    abort: bool


class ProgressTold(BaseModel):
    """One update of an app's progress: ``entry`` grows with each, ``at`` is unix seconds, ``update`` base64."""

    entry: int
    number: int
    at: float
    update: str


class ProgressAnswer(BaseModel):
    """The newest updates, oldest first."""

    progress: list[ProgressTold]


class AuthorizationAnswer(BaseModel):
    """The pool owner's signature, 0x hex of 65 bytes."""

    signature: str
