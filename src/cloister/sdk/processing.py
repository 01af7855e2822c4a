"""Running an app on protected data: find the orders, check everything that can be checked, then match and pay."""

from __future__ import annotations

import base64
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cloister.errors import InputError
from cloister.protocol.codec import ZERO_ADDRESS, Bytes32
from cloister.protocol.orders import AppOrder, DatasetOrder, RequestOrder, WorkerpoolOrder, sign_order
from cloister.protocol.params import RequestParams
from cloister.protocol.tags import TEE
from cloister.protocol.tasks import task_id
from cloister.protocol.units import format_rlc
from cloister.sdk.account import Account
from cloister.sdk.connection import Connection
from cloister.sdk.finding import OrderFinder, Request
from cloister.sdk.private_files import PrivateFiles
from cloister.sdk.progress import Listener, Progress
from cloister.sdk.results import Result
from cloister.sdk.tasks import Tasks

if TYPE_CHECKING:
    from cloister.sdk.receipts import ResultReceipt

RESULT_KEY_SECRET = "cloister-result-encryption-public-key"  # noqa: S105  (a name, not a secret)
RSA_RESULT_KEY_SECRET = "iexec-result-encryption-public-key"  # noqa: S105  (a name, not a secret)


class Run:
    """A started task. ``result`` waits, downloads and opens; ``receipt`` is what the enclave signed."""

    def __init__(self, tasks: Tasks, *, task_id: Bytes32, deal_id: Bytes32, transaction: str, index: int = 0) -> None:
        self._tasks = tasks
        self.index = index
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
        self._finder = OrderFinder(connection)
        self._tell = listener

    def start(self, request: Request) -> Run:
        """Make the deal. Everything that can be refused is refused before any money moves.

        Raises:
            Denied: no grant for this requester, or it was revoked.
            NotFound: no app or workerpool on offer at the price.
            Conflict: too little stake.
        """
        self._tell(Progress("FETCH_ORDERS"))
        app = self._finder.app_order(request)
        dataset = self._finder.dataset_order(request)
        workerpool = self._finder.workerpool_order(request, app)
        self._tell(Progress("FETCH_ORDERS", finished=True))
        params = self.build_params(request)
        order = self._request_order(request, app, dataset, workerpool, params)
        matching = self._finder.check(app, dataset, workerpool, order)
        if request.budget is not None:
            self._finder.check_budget(matching, request.budget)
            self._deposit_missing(matching.total_price)
        self._finder.check_stake(matching)
        self.push_result_key(request)
        self._tell(Progress("REQUEST_TO_PROCESS_PROTECTED_DATA"))
        return self._match(app, dataset, workerpool, order)

    def _deposit_missing(self, price: int) -> None:
        """Bring the stake up to what the deal costs: who gives a budget has agreed to pay."""
        connection = self._connection
        missing = price - connection.hub.account(connection.address, block="latest").stake
        if missing > 0:
            self._tell(Progress("DEPOSIT"))
            Account(connection).deposit(missing)
            self._tell(Progress("DEPOSIT", finished=True, detail=format_rlc(missing)))

    # --- the request ---

    def build_params(self, request: Request) -> RequestParams:
        """The request's params; its secrets are pushed to the SMS, and its private files stored, on the way."""
        given = dict(request.secrets or {})
        for slot in given:
            if slot < 1:
                raise InputError(f"secret slots count from 1, got {slot}")
        files, input_key = tuple(request.input_files), None
        if request.private_files:
            if files:
                raise InputError(
                    "the input files of a request are all private or all public",
                    hint="download the public ones and give them as private files",
                )
            input_key = max(given, default=0) + 1
            files, given[input_key] = PrivateFiles(self._connection, self._tell).send(request.private_files)
        named: dict[int, str] = {}
        for slot, value in given.items():
            self._tell(Progress("PUSH_REQUESTER_SECRET", detail=str(slot)))
            name = "0x" + secrets.token_bytes(16).hex()
            self._connection.sms.push_requester_secret(self._connection.address, name, value, self._connection.signer)
            named[slot] = name
        key_id = None
        if request.encrypt_result and request.result_key is None and self._connection.wallet is not None:
            key_id = self._connection.wallet.result_key().public.key_id
        return RequestParams(
            iexec_args=request.args,
            iexec_input_files=files,
            iexec_secrets=named,
            iexec_result_encryption=request.encrypt_result,
            iexec_result_storage_provider="ipfs" if request.callback == ZERO_ADDRESS else None,
            cloister_result_key=key_id,
            cloister_purpose=request.purpose,
            cloister_input_key=input_key,
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

    def push_result_key(self, request: Request) -> None:
        """Tell the SMS which key opens the result: this wallet's own, or the RSA key that the request names. The same key
        again is no change.
        """
        connection = self._connection
        if not request.encrypt_result:
            return
        if request.result_key is not None:
            from cloister.sealing.rsa_results import parse_result_public_key

            pem = request.result_key.encode()
            parse_result_public_key(pem)
            name, value = RSA_RESULT_KEY_SECRET, base64.b64encode(pem).decode()
        elif connection.wallet is not None:
            name, value = RESULT_KEY_SECRET, base64.b64encode(connection.wallet.result_key().public.raw).decode()
        else:
            raise InputError("an encrypted result needs a wallet")
        self._tell(Progress("PUSH_ENCRYPTION_KEY"))
        connection.sms.set_web2_secret(connection.address, name, value, connection.signer)
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
