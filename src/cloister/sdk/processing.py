"""Running an app on protected data: find the orders, check everything that can be checked, then match and pay."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cloister.errors import Conflict, Denied, InputError, NotFound
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.matching import Match, match_orders
from cloister.protocol.orders import AppOrder, DatasetOrder, OrderKind, RequestOrder, WorkerpoolOrder, sign_order
from cloister.protocol.params import RequestParams
from cloister.protocol.tags import TEE
from cloister.protocol.tasks import task_id
from cloister.protocol.units import Nrlc, format_rlc
from cloister.sdk.connection import Connection
from cloister.sdk.progress import Listener, Progress
from cloister.sdk.results import Result
from cloister.sdk.tasks import Tasks

if TYPE_CHECKING:
    from cloister.clients.market import OrderRecord
    from cloister.sdk.receipts import ResultReceipt

RESULT_KEY_SECRET = "cloister-result-encryption-public-key"  # noqa: S105  (a name, not a secret)


@dataclass(frozen=True, slots=True)
class Request:
    """What a requester wants. Prices are the most they pay per task; ``purpose`` is checked against the grant's policy."""

    app: Address
    dataset: Address | None
    args: str | None = None
    input_files: Sequence[str] = ()
    secrets: Mapping[int, str] | None = None
    data_max_price: Nrlc = Nrlc(0)
    app_max_price: Nrlc = Nrlc(0)
    workerpool_max_price: Nrlc = Nrlc(0)
    workerpool: Address | None = None
    user_whitelist: Address | None = None
    category: int = 0
    trust: int = 0
    purpose: str | None = None
    encrypt_result: bool = True
    callback: Address = ZERO_ADDRESS


class Run:
    """A started task. ``result`` waits, downloads and opens; ``receipt`` is what the enclave signed."""

    def __init__(self, tasks: Tasks, *, task_id: Bytes32, deal_id: Bytes32, transaction: str) -> None:
        self._tasks = tasks
        self.task_id = task_id
        self.deal_id = deal_id
        self.transaction = transaction

    def __repr__(self) -> str:
        return f"Run(task_id={self.task_id})"

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until the task is completed."""
        self._tasks.wait(self.task_id, deal_id=self.deal_id, timeout=timeout)
        return self

    @cached_property
    def result(self) -> Result:
        """The opened result."""
        self.wait()
        return self._tasks.result(self.task_id)

    @cached_property
    def receipt(self) -> ResultReceipt:
        """The receipt inside the result; ``.verify()`` proves it."""
        return self._tasks.receipt(self.task_id, self.result)

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {"task_id": self.task_id, "deal_id": self.deal_id, "transaction": self.transaction}


class Processing:
    """Finds orders and makes deals."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._tell = listener

    def start(self, request: Request) -> Run:
        """Make the deal. Everything that can be refused is refused before any money moves.

        Raises:
            Denied: no grant for this requester, or it was revoked.
            NotFound: no app or workerpool on offer at the price.
            Conflict: too little stake.
        """
        self._tell(Progress("FETCH_ORDERS"))
        app = self._app_order(request)
        dataset = self._dataset_order(request)
        workerpool = self._workerpool_order(request, app)
        self._tell(Progress("FETCH_ORDERS", finished=True))
        params = self._params(request)
        order = self._request_order(request, app, dataset, workerpool, params)
        matching = self._check(app, dataset, workerpool, order)
        self._check_stake(matching)
        if request.encrypt_result:
            self._push_result_key()
        self._tell(Progress("REQUEST_TO_PROCESS_PROTECTED_DATA"))
        return self._match(app, dataset, workerpool, order)

    # --- orders ---

    def _app_order(self, request: Request) -> AppOrder:
        records = self._connection.market.orders(
            OrderKind.APP,
            app=request.app,
            dataset=request.dataset or ZERO_ADDRESS,
            requester=self._connection.address,
            workerpool="any" if request.workerpool is None else request.workerpool,
            min_tag=TEE,
        )
        cheapest: int | None = None
        for record in records:
            if not isinstance(record.order, AppOrder) or self._is_used_up(record):
                continue
            if record.order.appprice <= request.app_max_price:
                return record.order
            cheapest = record.order.appprice if cheapest is None else min(cheapest, record.order.appprice)
        if cheapest is not None:
            raise NotFound(
                f"no app order found for the desired price: {request.app} costs {format_rlc(cheapest)}, "
                f"you allow {format_rlc(request.app_max_price)}",
                hint="raise app_max_price (--app-price)",
            )
        if self._connection.apps.owner_of_entry(request.app, block="latest") is None:
            raise NotFound(f"no app deployed at {request.app}", hint="check the address, and the network")
        raise NotFound(f"no app order found for {request.app}", hint="its owner must publish it: cloister app publish")

    def _dataset_order(self, request: Request) -> DatasetOrder | None:
        if request.dataset is None:
            return None
        connection = self._connection
        if connection.datasets.owner_of_entry(request.dataset, block="latest") is None:
            raise NotFound(f"no protected data at {request.dataset}", hint="check the address, and the network")
        cheapest: int | None = None
        revoked = False
        for app in (request.app, request.user_whitelist):
            if app is None:
                continue
            for record in connection.market.orders(
                OrderKind.DATASET,
                dataset=request.dataset,
                app=app,
                requester=connection.address,
                workerpool="any" if request.workerpool is None else request.workerpool,
            ):
                if not isinstance(record.order, DatasetOrder):
                    continue
                if self._is_used_up(record):
                    revoked = revoked or connection.hub.is_closed(record.order_hash, block="latest")
                    continue
                if record.order.datasetprice <= request.data_max_price:
                    return record.order
                cheapest = record.order.datasetprice if cheapest is None else min(cheapest, record.order.datasetprice)
        if cheapest is not None:
            raise NotFound(
                f"no dataset order found for the desired price: {request.dataset} costs {format_rlc(cheapest)}, "
                f"you allow {format_rlc(request.data_max_price)}",
                hint="raise data_max_price (--data-price)",
            )
        what = "the access was revoked" if revoked else "no access is granted, or it was revoked or used up"
        raise Denied(
            f"{what}: {connection.address} may not use {request.dataset} with app {request.app}",
            hint="ask its owner for a grant: cloister access grant",
            code="no-grant",
        )

    def _workerpool_order(self, request: Request, app: AppOrder) -> WorkerpoolOrder:
        cheapest: int | None = None
        for record in self._connection.market.orders(
            OrderKind.WORKERPOOL,
            workerpool=request.workerpool,
            app=request.app,
            dataset=request.dataset or ZERO_ADDRESS,
            requester=self._connection.address,
            min_tag=app.tag,
            category=request.category,
            min_trust=request.trust or None,
        ):
            if not isinstance(record.order, WorkerpoolOrder) or self._is_used_up(record):
                continue
            if record.order.workerpoolprice <= request.workerpool_max_price:
                return record.order
            price = record.order.workerpoolprice
            cheapest = price if cheapest is None else min(cheapest, price)
        if cheapest is not None:
            raise NotFound(
                f"no workerpool order found for the desired price: the cheapest costs {format_rlc(cheapest)}, "
                f"you allow {format_rlc(request.workerpool_max_price)}",
                hint="raise workerpool_max_price (--workerpool-price)",
            )
        raise NotFound(
            f"no workerpool offers category {request.category} with trust {request.trust}",
            hint="is the network up? cloister status",
        )

    def _is_used_up(self, record: OrderRecord) -> bool:
        """Whether the chain has nothing left of an order: closed, or matched as often as it may be. The market follows a
        little later.
        """
        return self._connection.hub.consumed(record.order_hash, block="latest") >= record.order.volume

    # --- the request ---

    def _params(self, request: Request) -> RequestParams:
        named: dict[int, str] = {}
        for slot, value in (request.secrets or {}).items():
            if slot < 1:
                raise InputError(f"secret slots count from 1, got {slot}")
            self._tell(Progress("PUSH_REQUESTER_SECRET", detail=str(slot)))
            name = "0x" + secrets.token_bytes(16).hex()
            self._connection.sms.push_requester_secret(self._connection.address, name, value, self._connection.signer)
            named[slot] = name
        key_id = None
        if request.encrypt_result and self._connection.wallet is not None:
            key_id = self._connection.wallet.result_key().public.key_id
        return RequestParams(
            iexec_args=request.args,
            iexec_input_files=tuple(request.input_files),
            iexec_secrets=named,
            iexec_result_encryption=request.encrypt_result,
            iexec_result_storage_provider="ipfs" if request.callback == ZERO_ADDRESS else None,
            cloister_result_key=key_id,
            cloister_purpose=request.purpose,
        )

    def _request_order(
        self,
        request: Request,
        app: AppOrder,
        dataset: DatasetOrder | None,
        workerpool: WorkerpoolOrder,
        params: RequestParams,
    ) -> RequestOrder:
        connection = self._connection
        return sign_order(
            RequestOrder(
                app=app.app,
                appmaxprice=app.appprice,
                dataset=ZERO_ADDRESS if dataset is None else dataset.dataset,
                datasetmaxprice=0 if dataset is None else dataset.datasetprice,
                workerpool=workerpool.workerpool,
                workerpoolmaxprice=workerpool.workerpoolprice,
                requester=connection.address,
                volume=1,
                tag=TEE,
                category=request.category,
                trust=request.trust,
                beneficiary=connection.address,
                callback=request.callback,
                params=params.build(),
                salt=Bytes32.from_raw(secrets.token_bytes(32)),
            ),
            connection.signer,
            connection.domain,
        )

    def _check(
        self, app: AppOrder, dataset: DatasetOrder | None, workerpool: WorkerpoolOrder, request: RequestOrder
    ) -> Match:
        """The contract's own checks, made here first: they cost nothing and say more."""
        facts = self._connection.hub.matching_facts(app, dataset, workerpool, request, block="latest")
        return match_orders(app, dataset, workerpool, request, facts)

    def _check_stake(self, matching: Match) -> None:
        connection = self._connection
        stake = connection.hub.account(connection.address, block="latest").stake
        if matching.total_price > stake:
            raise Conflict(
                f"cost per task ({format_rlc(matching.total_price)}) is greater than requester account stake "
                f"({format_rlc(stake)}). orders can't be matched",
                hint=f'cloister account deposit "{format_rlc(matching.total_price - stake)}"',
                code="stake-too-low",
            )

    def _push_result_key(self) -> None:
        """Tell the SMS which key opens this wallet's results. The same key again is no change."""
        import base64

        connection = self._connection
        if connection.wallet is None:
            raise InputError("an encrypted result needs a wallet")
        self._tell(Progress("PUSH_ENCRYPTION_KEY"))
        value = base64.b64encode(connection.wallet.result_key().public.raw).decode()
        connection.sms.set_web2_secret(connection.address, RESULT_KEY_SECRET, value, connection.signer)
        self._tell(Progress("PUSH_ENCRYPTION_KEY", finished=True))

    def _match(
        self, app: AppOrder, dataset: DatasetOrder | None, workerpool: WorkerpoolOrder, request: RequestOrder
    ) -> Run:
        connection = self._connection
        call = connection.hub.match_orders(app, dataset, workerpool, request)
        receipt = connection.sender.send(call, intent=f"match:{request.hash(connection.domain)}")
        deal = connection.hub.matched_deal(receipt)
        task = task_id(deal, 0)
        self._tell(Progress("REQUEST_TO_PROCESS_PROTECTED_DATA", finished=True, detail=task))
        return Run(Tasks(connection, self._tell), task_id=task, deal_id=deal, transaction=receipt.transaction)
