"""The market's bodies as its description at ``/openapi.json`` names them.

They describe only: bodies are read and checked by the protocol's own parsers and written from stored rows, which is
faster and leaves the texts of refusals to the rules.
"""

# ruff: noqa: N815  # members have the wire's names
from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloister.protocol.codec import SAFE_INTEGER_MAX
from cloister.protocol.orders import OrderKind

ADDRESS = "^0x[0-9a-fA-F]{40}$"
WORD = "^0x[0-9a-fA-F]{64}$"
ADDRESS_OR_ANY = "^(any|0x[0-9a-fA-F]{40})$"

AddressText = Annotated[str, Field(pattern=ADDRESS)]
WordText = Annotated[str, Field(pattern=WORD)]
TagText = Annotated[str, Field(pattern=WORD, description="bits: 0 tee, 1 scone, 2 gramine, 3 tdx, 8 gpu")]
SafeInteger = Annotated[int, Field(ge=0, le=SAFE_INTEGER_MAX)]
Moment = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", examples=["2026-01-01T00:00:00.000Z"])
]
Status = Annotated[
    Literal["open", "filled", "canceled", "dead"],
    Field(description="filled: used up; canceled: revoked on chain; dead: its owner, stake or counterpart is gone"),
]


class Exact(BaseModel):
    """An object with these members and no others."""

    model_config = ConfigDict(extra="forbid")


class Body(Exact):
    """What every answer has."""

    ok: Literal[True]


class ErrorBody(Exact):
    """What every refusal has: iExec's two members, then a word for machines and what to do about it."""

    ok: Literal[False]
    error: str
    code: str
    hint: str | None


class VersionBody(Body):
    version: str


class TypedMember(Exact):
    name: str
    type: str


class ChallengeDomain(Exact):
    name: Literal["iExec Gateway"]
    version: Literal["1"]
    chainId: str


class ChallengeMessage(Exact):
    challenge: Annotated[str, Field(pattern="^Sign this message to log into iExec Gateway: [0-9A-Za-z]{32}$")]


class TypedData(Exact):
    """EIP-712 typed data, to be signed as it is."""

    types: dict[str, list[TypedMember]]
    domain: ChallengeDomain
    primaryType: Literal["Challenge"]
    message: ChallengeMessage


class ChallengeBody(Body):
    data: TypedData


class MetricsBody(Body):
    """Blocks of the chain and of the market, and how many orders are open."""

    lastBlock: int
    checkpointBlock: int
    apporders: int
    datasetorders: int
    workerpoolorders: int
    requestorders: int


class Category(Exact):
    catid: int
    chainId: int
    name: str
    description: str
    workClockTimeRef: int
    transactionHash: WordText
    blockNumber: int
    blockTimestamp: Moment


class CategoryBody(Category, Body):
    pass


class _Listing(Body):
    count: Annotated[int, Field(ge=0, description="how many there are in all")]
    nextPage: Annotated[int | None, Field(description="only there when this page is full")] = None


class CategoriesBody(_Listing):
    categories: list[Category]


class DealtResource(Exact):
    pointer: AddressText
    price: int
    owner: AddressText


class DealRecord(Exact):
    dealid: WordText
    chainId: int
    app: DealtResource
    dataset: DealtResource
    workerpool: DealtResource
    requester: AddressText
    beneficiary: AddressText
    callback: AddressText
    appHash: WordText
    datasetHash: WordText
    workerpoolHash: WordText
    requestHash: WordText
    params: str
    volume: int
    category: int
    tag: TagText
    trust: int
    startTime: int
    botFirst: int
    botSize: int
    schedulerRewardRatio: int
    workerStake: int
    blockNumber: int
    blockTimestamp: Moment
    transactionHash: WordText


class DealBody(DealRecord, Body):
    pass


class DealsBody(_Listing):
    deals: list[DealRecord]


class OhlcBody(Body):
    ohlc: Annotated[
        list[Annotated[list[int], Field(min_length=3, max_length=3)]],
        Field(max_length=100, description="Unix time, workerpool price and volume of the newest deals, oldest first"),
    ]


class _Signed(Exact):
    volume: SafeInteger
    tag: TagText
    salt: WordText
    sign: Annotated[str, Field(pattern="^0x([0-9a-f]{2})*$")]


class AppOrderShape(_Signed):
    app: AddressText
    appprice: SafeInteger
    datasetrestrict: AddressText
    workerpoolrestrict: AddressText
    requesterrestrict: AddressText


class DatasetOrderShape(_Signed):
    dataset: AddressText
    datasetprice: SafeInteger
    apprestrict: AddressText
    workerpoolrestrict: AddressText
    requesterrestrict: AddressText


class WorkerpoolOrderShape(_Signed):
    workerpool: AddressText
    workerpoolprice: SafeInteger
    category: SafeInteger
    trust: SafeInteger
    apprestrict: AddressText
    datasetrestrict: AddressText
    requesterrestrict: AddressText


class RequestOrderShape(_Signed):
    app: AddressText
    appmaxprice: SafeInteger
    dataset: AddressText
    datasetmaxprice: SafeInteger
    workerpool: AddressText
    workerpoolmaxprice: SafeInteger
    requester: AddressText
    beneficiary: AddressText
    callback: AddressText
    category: SafeInteger
    trust: SafeInteger
    params: str


class _Record(Exact):
    orderHash: WordText
    chainId: int
    remaining: SafeInteger
    status: Status
    signer: AddressText
    publicationTimestamp: Moment


class AppOrderRecord(_Record):
    order: AppOrderShape


class DatasetOrderRecord(_Record):
    order: DatasetOrderShape
    bulk: Annotated[bool, Field(description="free and practically endless: bulk requests may use it")]


class WorkerpoolOrderRecord(_Record):
    order: WorkerpoolOrderShape


class RequestOrderRecord(_Record):
    order: RequestOrderShape


class _Counted(Body):
    count: Literal[1]


class AppOrderBody(AppOrderRecord, _Counted):
    pass


class DatasetOrderBody(DatasetOrderRecord, _Counted):
    pass


class WorkerpoolOrderBody(WorkerpoolOrderRecord, _Counted):
    pass


class RequestOrderBody(RequestOrderRecord, _Counted):
    pass


class AppOrdersBody(_Listing):
    orders: list[AppOrderRecord]


class DatasetOrdersBody(_Listing):
    orders: list[DatasetOrderRecord]


class WorkerpoolOrdersBody(_Listing):
    orders: list[WorkerpoolOrderRecord]


class RequestOrdersBody(_Listing):
    orders: list[RequestOrderRecord]


class PublishedAppOrderBody(Body):
    published: AppOrderRecord


class PublishedDatasetOrderBody(Body):
    published: DatasetOrderRecord


class PublishedWorkerpoolOrderBody(Body):
    published: WorkerpoolOrderRecord


class PublishedRequestOrderBody(Body):
    published: RequestOrderRecord


class UnpublishedBody(Body):
    unpublished: list[WordText]


ONE_ORDER: dict[OrderKind, type[BaseModel]] = {
    OrderKind.APP: AppOrderBody,
    OrderKind.DATASET: DatasetOrderBody,
    OrderKind.WORKERPOOL: WorkerpoolOrderBody,
    OrderKind.REQUEST: RequestOrderBody,
}
MANY_ORDERS: dict[OrderKind, type[BaseModel]] = {
    OrderKind.APP: AppOrdersBody,
    OrderKind.DATASET: DatasetOrdersBody,
    OrderKind.WORKERPOOL: WorkerpoolOrdersBody,
    OrderKind.REQUEST: RequestOrdersBody,
}
PUBLISHED: dict[OrderKind, type[BaseModel]] = {
    OrderKind.APP: PublishedAppOrderBody,
    OrderKind.DATASET: PublishedDatasetOrderBody,
    OrderKind.WORKERPOOL: PublishedWorkerpoolOrderBody,
    OrderKind.REQUEST: PublishedRequestOrderBody,
}
SHAPES: dict[OrderKind, type[BaseModel]] = {
    OrderKind.APP: AppOrderShape,
    OrderKind.DATASET: DatasetOrderShape,
    OrderKind.WORKERPOOL: WorkerpoolOrderShape,
    OrderKind.REQUEST: RequestOrderShape,
}

_EITHER_NUMBER: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": SAFE_INTEGER_MAX},
        {"type": "string", "pattern": "^(0|[1-9][0-9]{0,14})$"},
    ]
}


def order_input(kind: OrderKind) -> dict[str, Any]:
    """The JSON schema of a signed order on its way in: numbers may be decimal strings, ``sign`` may be missing."""
    shape = SHAPES[kind].model_json_schema()
    properties = {
        name: dict(_EITHER_NUMBER) if schema.get("type") == "integer" else schema
        for name, schema in shape["properties"].items()
    }
    properties["sign"] = {"type": "string", "pattern": "^0x([0-9a-fA-F]{2}){0,1024}$"}
    required = [name for name in properties if name != "sign"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
