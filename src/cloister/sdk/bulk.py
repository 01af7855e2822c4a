"""Bulk: one signed request for many protected data, cut into slices; each slice is one task (reference 5.5).

The grants of a slice lie as one JSON file in content storage, the slices' CIDs in another whose CID stands in the request. A
bulk request is plain JSON that iExec's clients read and write as well. Nothing is consumed of the grants: each is checked when
its key is released, and one that was revoked by then fails alone.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.errors import CloisterError, Conflict, DecodeError, Denied, InputError, NotFound, quoted
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, parse_json
from cloister.protocol.orders import DatasetOrder, OrderKind, RequestOrder, parse_order, sign_order
from cloister.protocol.params import RequestParams
from cloister.protocol.tags import TEE
from cloister.protocol.tasks import task_id as derive_task_id
from cloister.protocol.units import INFINITE_VOLUME, Nrlc
from cloister.sdk.access import Grant
from cloister.sdk.connection import Connection
from cloister.sdk.finding import OrderFinder, Request
from cloister.sdk.processing import Processing, Run
from cloister.sdk.progress import Listener, Progress
from cloister.sdk.tasks import Tasks, TaskView

SLICE_MOST = 100
"""Most datasets of one task, as iExec's clients cut them."""
SLICES_MOST = 1000
FILE_CAP = 1 << 20
"""Largest root or slice file, bytes."""

Access = Grant | DatasetOrder | Mapping[str, Any]
"""A grant: ours, the signed dataset order, or the JSON that iExec's ``getGrantedAccess`` answers with."""


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """A signed request for many data. ``slices`` is how many tasks it makes."""

    order: RequestOrder

    @property
    def slices(self) -> int:
        """How many tasks the request makes."""
        return self.order.volume

    @property
    def root(self) -> str:
        """CID of the file that lists the slices."""
        cid = RequestParams.parse(self.order.params, allow_unknown=True).bulk_cid
        if cid is None:
            raise InputError("this request is no bulk request: its params name no bulk_cid")
        return cid

    def to_json(self) -> dict[str, Any]:
        """The signed request order, as iExec's clients exchange it."""
        return dict(self.order.to_json())

    @classmethod
    def parse(cls, value: object) -> BulkRequest:
        """Read what ``to_json`` or iExec's ``prepareBulkRequest`` wrote.

        Raises:
            DecodeError, InputError: it is no signed bulk request.
        """
        order = parse_order(OrderKind.REQUEST, value)
        if not isinstance(order, RequestOrder):
            raise DecodeError("a bulk request is a signed request order")
        request = cls(order)
        _ = request.root
        if order.dataset != ZERO_ADDRESS:
            raise InputError(f"a bulk request names no dataset of its own, this one names {order.dataset}")
        if not 1 <= order.volume <= SLICES_MOST:
            raise InputError(f"a bulk request has 1 to {SLICES_MOST} slices, not {order.volume}")
        return request


@dataclass(frozen=True, slots=True)
class BulkTask:
    """One slice: its data, and its task once there is one."""

    index: int
    protected_data: tuple[Address, ...]
    run: Run | None
    view: TaskView | None

    @property
    def status(self) -> str:
        """iExec's name of the task's status; ``TO_CREATE`` before its deal."""
        return "TO_CREATE" if self.view is None else self.view.status

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {
            "index": self.index,
            "protected_data": list(self.protected_data),
            "status": self.status,
            "success": self.status == "COMPLETED",
            "task_id": None if self.run is None else self.run.task_id,
            "deal_id": None if self.run is None else self.run.deal_id,
        }


@dataclass(frozen=True, slots=True)
class BulkStatus:
    """Where a bulk request stands: ``INITIALIZING`` (no deal yet), ``IN_PROGRESS`` or ``FINISHED``."""

    tasks: tuple[BulkTask, ...]

    @property
    def status(self) -> str:
        """iExec's name of the whole."""
        if all(task.view is None for task in self.tasks):
            return "INITIALIZING"
        ended = all(task.view is not None and task.view.ended for task in self.tasks)
        return "FINISHED" if ended else "IN_PROGRESS"

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        created = [task for task in self.tasks if task.view is not None]
        return {
            "status": self.status,
            "tasks_total": len(self.tasks),
            "tasks_to_create": len(self.tasks) - len(created),
            "tasks_completed": sum(task.status == "COMPLETED" for task in created),
            "tasks_processing": sum(task.view is not None and not task.view.ended for task in created),
            "tasks": [task.to_json() for task in self.tasks],
        }


class Bulk:
    """Prepares, runs and inspects bulk requests for the connection's wallet."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._finder = OrderFinder(connection)
        self._processing = Processing(connection, listener)
        self._tell = listener

    def prepare(self, grants: Sequence[Access], request: Request, *, max_per_task: int = SLICE_MOST) -> BulkRequest:
        """Store the slices and sign the request.

        Raises:
            InputError: no grants, one that is not for bulk, for another app or requester, or the same data twice.
        """
        if not 1 <= max_per_task <= SLICE_MOST:
            raise InputError(f"max_per_task must be 1 to {SLICE_MOST}, not {max_per_task}")
        orders = [self._check_grant(_dataset_order(grant), request.app) for grant in grants]
        if not orders:
            raise InputError("a bulk request needs grants", hint="dp.get_granted_access(bulk_only=True, app=…)")
        if len(orders) > max_per_task * SLICES_MOST:
            raise InputError(f"{len(orders)} grants are more than {SLICES_MOST} slices of {max_per_task}")
        _check_once(orders)
        params = self._processing.build_params(request)
        self._processing.push_result_key(request)
        self._tell(Progress("PREPARE_PROTECTED_DATA_BULK"))
        slices = [orders[start : start + max_per_task] for start in range(0, len(orders), max_per_task)]
        cids = [self._store([order.to_json() for order in part]) for part in slices]
        root = self._store(cids)
        self._tell(Progress("PREPARE_PROTECTED_DATA_BULK", finished=True, detail=root))
        self._tell(Progress("CREATE_BULK_REQUEST"))
        connection = self._connection
        order = sign_order(
            RequestOrder(
                app=request.app,
                appmaxprice=request.app_max_price,
                dataset=ZERO_ADDRESS,
                datasetmaxprice=0,
                workerpool=ZERO_ADDRESS if request.workerpool is None else request.workerpool,
                workerpoolmaxprice=request.workerpool_max_price,
                requester=connection.address,
                volume=len(slices),
                tag=TEE,
                category=request.category,
                trust=request.trust,
                beneficiary=connection.address,
                callback=request.callback,
                params=dataclasses.replace(params, bulk_cid=root).build(),
                salt=Bytes32.from_raw(secrets.token_bytes(32)),
            ),
            connection.signer,
            connection.domain,
        )
        self._tell(Progress("CREATE_BULK_REQUEST", finished=True))
        return BulkRequest(order)

    def process(self, bulk: BulkRequest, *, workerpool: Address | None = None) -> list[Run]:
        """Make the deals that are missing, and return the run of every slice in order. Calling again is harmless.

        Raises:
            Denied: the request is another wallet's. NotFound: no app or workerpool order at its prices.
            Conflict: too little stake, or the request was cancelled.
        """
        connection, order = self._connection, bulk.order
        if order.requester != connection.address:
            raise Denied(
                f"the bulk request is {order.requester}'s, not {connection.address}'s",
                hint="use its requester's wallet",
            )
        if workerpool is not None and order.workerpool not in (ZERO_ADDRESS, workerpool):
            raise InputError(f"the bulk request is for workerpool {order.workerpool}, not for {workerpool}")
        digest = order.hash(connection.domain)
        if connection.hub.is_closed(digest, block="latest"):
            raise Conflict("the bulk request was cancelled", hint="prepare another")
        deals: dict[int, Run] = {}
        while (consumed := connection.hub.consumed(digest, block="latest")) < order.volume:
            for run in self._match(bulk, workerpool or order.workerpool, consumed):
                deals[run.index] = run
        if len(deals) < order.volume:
            deals |= {run.index: run for run in self._known_runs(digest)}
        return [deals[index] for index in sorted(deals)]

    def inspect(self, bulk: BulkRequest) -> BulkStatus:
        """Where each slice stands, with the data that it names."""
        digest = bulk.order.hash(self._connection.domain)
        runs = {run.index: run for run in self._known_runs(digest)}
        tasks = Tasks(self._connection, self._tell)
        found = []
        for index, data in enumerate(self._slices(bulk)):
            run = runs.get(index)
            view = None if run is None else tasks.status(run.task_id, deal_id=run.deal_id)
            found.append(BulkTask(index, data, run, view))
        return BulkStatus(tuple(found))

    # --- grants ---

    def _check_grant(self, order: DatasetOrder, app: Address) -> DatasetOrder:
        what = f"the grant on {order.dataset}"
        if order.datasetprice != 0 or order.volume < INFINITE_VOLUME - 1:
            raise InputError(f"{what} is not for bulk", hint="its owner must grant with allow_bulk=True")
        self._check_restriction(what, "app", order.apprestrict, app)
        self._check_restriction(what, "requester", order.requesterrestrict, self._connection.address)
        return order

    def _check_restriction(self, what: str, role: str, restriction: Address, wanted: Address) -> None:
        if restriction in (ZERO_ADDRESS, wanted):
            return
        if not self._connection.hub.group_has(restriction, wanted, block="latest"):
            raise InputError(f"{what} is for {role} {restriction}, not for {wanted}")

    # --- slices ---

    def _store(self, value: object) -> str:
        content = json.dumps(value, separators=(",", ":")).encode()
        return str(self._connection.store.put([content]).cid)

    def _load(self, cid: str) -> list[Any]:
        value = parse_json(b"".join(self._connection.store.open(cid, cap=FILE_CAP)), cap=FILE_CAP)
        if not isinstance(value, list):
            raise DecodeError(f"{quoted(cid)} is no list: not a bulk request's file")
        return value

    def _slices(self, bulk: BulkRequest) -> Iterator[tuple[Address, ...]]:
        for cid in self._load(bulk.root)[: bulk.slices]:
            yield tuple(_dataset_of(item) for item in self._load(str(cid)))

    # --- deals ---

    def _match(self, bulk: BulkRequest, workerpool: Address, consumed: int) -> Iterator[Run]:
        order, connection = bulk.order, self._connection
        request = Request(
            app=order.app,
            dataset=None,
            app_max_price=Nrlc(order.appmaxprice),
            workerpool_max_price=Nrlc(order.workerpoolmaxprice),
            workerpool=None if workerpool == ZERO_ADDRESS else workerpool,
            category=order.category,
            trust=order.trust,
        )
        self._tell(Progress("FETCH_ORDERS"))
        app = self._finder.app_order(request)
        pool = self._finder.workerpool_order(request, app)
        self._tell(Progress("FETCH_ORDERS", finished=True))
        self._finder.check_stake(self._finder.check(app, None, pool, order))
        self._tell(Progress("REQUEST_TO_PROCESS_BULK_DATA"))
        call = connection.hub.match_orders(app, None, pool, order)
        receipt = connection.sender.send(call, intent=f"match:{order.hash(connection.domain)}:{consumed}")
        deal_id = connection.hub.matched_deal(receipt)
        deal = connection.hub.deal(deal_id, block="latest")
        if deal is None:
            raise NotFound(f"no deal found for id {deal_id} on chain {connection.network.chain_id}")
        self._tell(Progress("REQUEST_TO_PROCESS_BULK_DATA", finished=True, detail=deal_id))
        return self._runs(deal_id, deal.bot_first, deal.bot_size, receipt.transaction)

    def _known_runs(self, digest: Bytes32) -> Iterator[Run]:
        for deal in self._connection.market.deals(requestorder_hash=digest):
            yield from self._runs(deal.deal_id, deal.bot_first, deal.bot_size, str(deal.transaction))

    def _runs(self, deal_id: Bytes32, first: int, size: int, transaction: str) -> Iterator[Run]:
        tasks = Tasks(self._connection, self._tell)
        for index in range(first, first + size):
            identity = derive_task_id(deal_id, index)
            yield Run(tasks, task_id=identity, deal_id=deal_id, transaction=transaction, index=index)


def _dataset_order(grant: Access) -> DatasetOrder:
    if isinstance(grant, Grant):
        return grant.order
    if isinstance(grant, DatasetOrder):
        return grant
    given = {name: value for name, value in grant.items() if name != "remainingAccess"}
    order = parse_order(OrderKind.DATASET, given)
    if not isinstance(order, DatasetOrder):
        raise DecodeError("a grant is a signed dataset order")
    return order


def _dataset_of(item: object) -> Address:
    """The dataset that a slice's entry names; zero for one that is no order, as the SMS will say."""
    try:
        return Address(item["dataset"])  # type: ignore[index]  # whatever it is, it was read from storage
    except (CloisterError, KeyError, TypeError):
        return ZERO_ADDRESS


def _check_once(orders: Sequence[DatasetOrder]) -> None:
    seen: set[Address] = set()
    for order in orders:
        if order.dataset in seen:
            raise InputError(f"two grants on {order.dataset}", hint="give one grant for each protected data")
        seen.add(order.dataset)
