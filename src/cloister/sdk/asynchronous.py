"""The SDK for asyncio: the same names and meanings as the synchronous one, each call in a thread.

Written by ``deploy/make_async.py`` from the synchronous classes; change those, then run ``make async``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cloister.clients.market import OrderRecord
from cloister.protocol.codec import ZERO_ADDRESS, Bytes32
from cloister.protocol.orders import Order, OrderKind
from cloister.protocol.tags import TEE_TDX, Tag
from cloister.protocol.units import INFINITE_VOLUME
from cloister.sdk.access import Grant, When
from cloister.sdk.account import Account, Balances
from cloister.sdk.apps import App, IApps, Offer
from cloister.sdk.bulk import Access as BulkAccess
from cloister.sdk.bulk import BulkRequest, BulkStatus
from cloister.sdk.data_protector import DataProtector
from cloister.sdk.debugging import TaskRecord
from cloister.sdk.history import History
from cloister.sdk.home import LOCAL
from cloister.sdk.orders import Orders
from cloister.sdk.policies import RulesGiven, StandingPolicy
from cloister.sdk.private_files import PrivateFile
from cloister.sdk.processing import Run
from cloister.sdk.progress import Listener, silent
from cloister.sdk.protection import ProtectedData
from cloister.sdk.receipts import ResultReceipt
from cloister.sdk.results import Result
from cloister.sdk.tasks import Logs, Tasks, TaskView
from cloister.sdk.wallet import Wallet

T = TypeVar("T")
_END = object()


async def _each(items: Iterator[T]) -> AsyncIterator[T]:
    while True:
        item = await asyncio.to_thread(next, items, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]  # the sentinel is not a T


class AsyncAccount:
    """Deposits, withdrawals and balances. For asyncio."""

    def __init__(self, twin: Account) -> None:
        self._twin = twin

    async def balances(self, address: str | None = None) -> Balances:
        """Balances of ``address`` (default: the wallet's own), all at one block."""
        return await asyncio.to_thread(self._twin.balances, address)

    async def deposit(self, amount: str | int) -> Balances:
        """Move RLC from the wallet into the hub's account, where deals are paid from."""
        return await asyncio.to_thread(self._twin.deposit, amount)

    async def withdraw(self, amount: str | int) -> Balances:
        """Move free stake back to the wallet."""
        return await asyncio.to_thread(self._twin.withdraw, amount)


class AsyncIApps:
    """Deploys, publishes and shows apps. For asyncio."""

    def __init__(self, twin: IApps) -> None:
        self._twin = twin

    async def deploy(self, bundle: Path, *, name: str, digest: Bytes32 | None = None) -> App:
        """Upload a bundle (``cloister iapp build``) and register it for the wallet. Deploying the same again gives the same app."""
        return await asyncio.to_thread(self._twin.deploy, bundle, name=name, digest=digest)

    async def register(self, location: str, digest: Bytes32, *, name: str) -> App:
        """Register an app that lies somewhere already: a bundle or an image's archive in storage (``/ipfs/…``), or an image on a"""
        return await asyncio.to_thread(self._twin.register, location, digest, name=name)

    async def publish(
        self,
        app: str,
        *,
        price: str | int = 0,
        uses: int = INFINITE_VOLUME,
        user: str | None = None,
        dataset: str | None = None,
    ) -> Bytes32:
        """Offer the app on the market: ``uses`` runs at ``price`` each, to ``user`` (None: anyone). Returns the order's hash."""
        return await asyncio.to_thread(self._twin.publish, app, price=price, uses=uses, user=user, dataset=dataset)

    async def show(self, app: str) -> App:
        """An app's fields."""
        return await asyncio.to_thread(self._twin.show, app)

    async def list(self, owner: str | None = None) -> AsyncIterator[App]:
        """Apps of ``owner`` (default: the wallet)."""
        items = await asyncio.to_thread(self._twin.list, owner)
        async for item in _each(items):
            yield item

    async def offers(self, app: str) -> AsyncIterator[Offer]:
        """What of the app stands on the market and is not used up, for whomever it is."""
        items = await asyncio.to_thread(self._twin.offers, app)
        async for item in _each(items):
            yield item

    async def open_bundle(self, app: str, *, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield what storage has of the app's bundle (its first ``length`` bytes), proven to be the content that the chain"""
        items = await asyncio.to_thread(self._twin.open_bundle, app, length=length)
        async for item in _each(items):
            yield item

    async def bundle_size(self, app: str) -> int:
        """How many bytes storage says the app's bundle has."""
        return await asyncio.to_thread(self._twin.bundle_size, app)

    async def has_secret(self, app: str) -> bool:
        """Whether the app was given a secret."""
        return await asyncio.to_thread(self._twin.has_secret, app)

    async def push_secret(self, app: str, secret: str) -> None:
        """Give the app a secret that only its enclaves get. It cannot be changed later; the same again changes nothing."""
        return await asyncio.to_thread(self._twin.push_secret, app, secret)


class AsyncOrders:
    """Orders on the market and on chain. For asyncio."""

    def __init__(self, twin: Orders) -> None:
        self._twin = twin

    async def list(self, kind: OrderKind, **filters: Any) -> AsyncIterator[OrderRecord]:
        """Open orders of a kind; filters are the market's (``app=``, ``dataset=``, ``requester=``, …)."""
        items = await asyncio.to_thread(self._twin.list, kind, **filters)
        async for item in _each(items):
            yield item

    async def show(self, kind: OrderKind, order_hash: str) -> OrderRecord:
        """One order, whatever its state."""
        return await asyncio.to_thread(self._twin.show, kind, order_hash)

    async def publish_workerpool(
        self,
        workerpool: str,
        *,
        price: str | int = 0,
        category: int = 0,
        volume: int = 1000,
        trust: int = 0,
        tag: Tag = TEE_TDX,
    ) -> Bytes32:
        """Offer a workerpool's service; its owner must have staked 30 % of the price for each task."""
        return await asyncio.to_thread(
            self._twin.publish_workerpool,
            workerpool,
            price=price,
            category=category,
            volume=volume,
            trust=trust,
            tag=tag,
        )

    async def cancel(self, kind: OrderKind, order: Order | str) -> str:
        """Close an order on chain, for good. Returns the transaction's hash."""
        return await asyncio.to_thread(self._twin.cancel, kind, order)


class AsyncTasks:
    """Status, waiting, logs, results and claims. For asyncio."""

    def __init__(self, twin: Tasks) -> None:
        self._twin = twin

    async def status(self, task_id: str, *, deal_id: str | None = None) -> TaskView:
        """Where a task stands. A task that is not initialized yet is known only with its ``deal_id``."""
        return await asyncio.to_thread(self._twin.status, task_id, deal_id=deal_id)

    async def watch(
        self, task_id: str, *, deal_id: str | None = None, timeout: float | None = None
    ) -> AsyncIterator[TaskView]:
        """Yield the task's view at once and whenever it changes, until it ended or its workerpool gave it up."""
        items = await asyncio.to_thread(self._twin.watch, task_id, deal_id=deal_id, timeout=timeout)
        async for item in _each(items):
            yield item

    async def wait(self, task_id: str, *, deal_id: str | None = None, timeout: float | None = None) -> TaskView:
        """Wait until the task ended and return its last view."""
        return await asyncio.to_thread(self._twin.wait, task_id, deal_id=deal_id, timeout=timeout)

    async def logs(self, task_id: str) -> list[Logs]:
        """What the app printed; only the task's requester gets it."""
        return await asyncio.to_thread(self._twin.logs, task_id)

    async def debug(self, task_id: str, *, deal_id: str | None = None) -> TaskRecord:
        """All that can be known of a task: the chain's word, the scheduler's and each worker's, with times and causes."""
        return await asyncio.to_thread(self._twin.debug, task_id, deal_id=deal_id)

    async def claim(self, task_id: str, *, deal_id: str | None = None) -> str:
        """Take the money of a late task back. Returns the transaction's hash."""
        return await asyncio.to_thread(self._twin.claim, task_id, deal_id=deal_id)

    async def result(self, task_id: str, *, pem_private_key: str | None = None) -> Result:
        """Download and open a completed task's result. ``pem_private_key`` opens one that is sealed to an RSA key, as iExec's"""
        return await asyncio.to_thread(self._twin.result, task_id, pem_private_key=pem_private_key)

    async def receipt(self, task_id: str, result: Result) -> ResultReceipt:
        """The receipt inside a task's opened result, beside the digest that the chain has."""
        return await asyncio.to_thread(self._twin.receipt, task_id, result)


class AsyncDataProtector:
    """Protect data, grant and revoke access, run apps on it, open results. For asyncio."""

    def __init__(self, twin: DataProtector) -> None:
        self._twin = twin

    @classmethod
    async def connect(
        cls, network: str = LOCAL, *, wallet: Wallet | str | Path | None = None, on_status: Listener = silent
    ) -> AsyncDataProtector:
        """Open a network by name or URL."""
        return cls(await asyncio.to_thread(DataProtector.connect, network, wallet=wallet, on_status=on_status))

    @property
    def account(self) -> AsyncAccount:
        """Balances, deposits, withdrawals."""
        return AsyncAccount(self._twin.account)

    @property
    def apps(self) -> AsyncIApps:
        """The wallet's apps."""
        return AsyncIApps(self._twin.apps)

    @property
    def orders(self) -> AsyncOrders:
        """The order books."""
        return AsyncOrders(self._twin.orders)

    @property
    def tasks(self) -> AsyncTasks:
        """Status, waiting, logs, results, claims."""
        return AsyncTasks(self._twin.tasks)

    async def protect_data(
        self, data: object, *, name: str = "", content_format: str = "AES256_GCM_HKDF_1MB"
    ) -> ProtectedData:
        """Encrypt ``data`` (dict, bytes, Path to a file or folder, DataFrame), store it, mint it, give its key to the SMS."""
        return await asyncio.to_thread(self._twin.protect_data, data, name=name, content_format=content_format)

    async def get_protected_data(
        self,
        *,
        address: str | None = None,
        owner: str | None = None,
        required_schema: Mapping[str, Any] | None = None,
        created_after: int | None = None,
    ) -> list[ProtectedData]:
        """List protected data, newest first; absent filters match anything."""
        return await asyncio.to_thread(
            self._twin.get_protected_data,
            address=address,
            owner=owner,
            required_schema=required_schema,
            created_after=created_after,
        )

    async def get_history(self, protected_data: ProtectedData | str, *, complete: bool = True) -> History:
        """Every release and refusal of protected data out of the SMS's transparency log, each proven against its signed head,"""
        return await asyncio.to_thread(self._twin.get_history, protected_data, complete=complete)

    async def transfer_ownership(self, protected_data: ProtectedData | str, new_owner: str) -> str:
        """Give the data to another owner; grants of the former owner are void from then on. Returns the transaction's hash."""
        return await asyncio.to_thread(self._twin.transfer_ownership, protected_data, new_owner)

    async def grant_access(
        self,
        protected_data: ProtectedData | str,
        *,
        app: App | str,
        user: str | None = None,
        price: str | int = 0,
        accesses: int = 1,
        allow_bulk: bool = False,
        valid_from: When | None = None,
        until: When | None = None,
        purposes: Sequence[str] = (),
        enclaves: Sequence[str] = (),
        hardware: RulesGiven | None = None,
        logs: bool = False,
    ) -> Grant:
        """Let ``app`` use the data for ``user`` (None: anyone), ``accesses`` times at ``price`` each."""
        return await asyncio.to_thread(
            self._twin.grant_access,
            protected_data,
            app=app,
            user=user,
            price=price,
            accesses=accesses,
            allow_bulk=allow_bulk,
            valid_from=valid_from,
            until=until,
            purposes=purposes,
            enclaves=enclaves,
            hardware=hardware,
            logs=logs,
        )

    async def get_granted_access(
        self,
        *,
        protected_data: ProtectedData | str | None = None,
        app: App | str | None = None,
        user: str | None = None,
        user_strict: bool = False,
        bulk_only: bool = False,
    ) -> AsyncIterator[Grant]:
        """Open grants; without ``protected_data`` those on all data of the wallet."""
        items = await asyncio.to_thread(
            self._twin.get_granted_access,
            protected_data=protected_data,
            app=app,
            user=user,
            user_strict=user_strict,
            bulk_only=bulk_only,
        )
        async for item in _each(items):
            yield item

    async def revoke_access(self, grant: Grant | str) -> str:
        """Close one grant (or the order of that hash) on chain. Returns the transaction's hash."""
        return await asyncio.to_thread(self._twin.revoke_access, grant)

    async def revoke_all_access(
        self, protected_data: ProtectedData | str, *, app: App | str | None = None, user: str | None = None
    ) -> list[tuple[Grant, str]]:
        """Close every open grant of the data that matches; returns each with its transaction's hash."""
        return await asyncio.to_thread(self._twin.revoke_all_access, protected_data, app=app, user=user)

    async def set_data_policy(self, protected_data: ProtectedData | str, rules: RulesGiven | None) -> StandingPolicy:
        """Sign hardware rules that every later release of the data's key must meet beside the grant's; None lifts them."""
        return await asyncio.to_thread(self._twin.set_data_policy, protected_data, rules)

    async def get_data_policy(self, protected_data: ProtectedData | str) -> StandingPolicy:
        """The hardware rules that the data's present owner signed."""
        return await asyncio.to_thread(self._twin.get_data_policy, protected_data)

    async def process_protected_data(
        self,
        protected_data: ProtectedData | str | None,
        *,
        app: App | str,
        args: str | None = None,
        input_files: Sequence[str] = (),
        private_files: Sequence[PrivateFile] = (),
        secrets: Mapping[int, str] | None = None,
        data_max_price: str | int = 0,
        app_max_price: str | int = 0,
        workerpool_max_price: str | int = 0,
        budget: str | int | None = None,
        workerpool: str | None = None,
        user_whitelist: str | None = None,
        category: int = 0,
        trust: int = 0,
        purpose: str | None = None,
        encrypt_result: bool = True,
        result_key: str | None = None,
        callback: str = ZERO_ADDRESS,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Run:
        """Run ``app`` on the data in an enclave and pay for it. The result comes back sealed to this wallet."""
        return await asyncio.to_thread(
            self._twin.process_protected_data,
            protected_data,
            app=app,
            args=args,
            input_files=input_files,
            private_files=private_files,
            secrets=secrets,
            data_max_price=data_max_price,
            app_max_price=app_max_price,
            workerpool_max_price=workerpool_max_price,
            budget=budget,
            workerpool=workerpool,
            user_whitelist=user_whitelist,
            category=category,
            trust=trust,
            purpose=purpose,
            encrypt_result=encrypt_result,
            result_key=result_key,
            callback=callback,
            wait=wait,
            timeout=timeout,
        )

    async def wait_for_task_completion(
        self, task_id: str, *, deal_id: str | None = None, timeout: float | None = None
    ) -> TaskView:
        """Wait until a task ended."""
        return await asyncio.to_thread(self._twin.wait_for_task_completion, task_id, deal_id=deal_id, timeout=timeout)

    async def get_result_from_completed_task(self, task_id: str, *, pem_private_key: str | None = None) -> Result:
        """Download and open a completed task's result; ``pem_private_key`` opens one that is sealed to an RSA key."""
        return await asyncio.to_thread(
            self._twin.get_result_from_completed_task, task_id, pem_private_key=pem_private_key
        )

    async def prepare_bulk_request(
        self,
        bulk_accesses: Sequence[BulkAccess],
        *,
        app: App | str,
        max_protected_data_per_task: int = 100,
        args: str | None = None,
        input_files: Sequence[str] = (),
        private_files: Sequence[PrivateFile] = (),
        secrets: Mapping[int, str] | None = None,
        app_max_price: str | int = 0,
        workerpool_max_price: str | int = 0,
        workerpool: str | None = None,
        category: int = 0,
        trust: int = 0,
        purpose: str | None = None,
        encrypt_result: bool = True,
        result_key: str | None = None,
    ) -> BulkRequest:
        """Sign one request to run ``app`` on many data, granted with ``allow_bulk``; nothing is paid yet."""
        return await asyncio.to_thread(
            self._twin.prepare_bulk_request,
            bulk_accesses,
            app=app,
            max_protected_data_per_task=max_protected_data_per_task,
            args=args,
            input_files=input_files,
            private_files=private_files,
            secrets=secrets,
            app_max_price=app_max_price,
            workerpool_max_price=workerpool_max_price,
            workerpool=workerpool,
            category=category,
            trust=trust,
            purpose=purpose,
            encrypt_result=encrypt_result,
            result_key=result_key,
        )

    async def process_bulk_request(
        self,
        bulk_request: BulkRequest | Mapping[str, Any],
        *,
        workerpool: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> list[Run]:
        """Make and pay the deals of a bulk request; one run for each slice, in order. Calling again pays nothing twice."""
        return await asyncio.to_thread(
            self._twin.process_bulk_request, bulk_request, workerpool=workerpool, wait=wait, timeout=timeout
        )

    async def inspect_bulk_request(self, bulk_request: BulkRequest | Mapping[str, Any]) -> BulkStatus:
        """Where each slice of a bulk request stands; each run's ``result.bulk_items()`` says what became of each data."""
        return await asyncio.to_thread(self._twin.inspect_bulk_request, bulk_request)
