"""DataProtector: what most users need, under iExec's names in snake_case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloister.errors import Denied, InputError, NotFound, quoted
from cloister.protocol.codec import ZERO_ADDRESS, Address
from cloister.protocol.units import parse_nrlc
from cloister.sdk.access import Access, Grant, When
from cloister.sdk.account import Account
from cloister.sdk.apps import App, IApps
from cloister.sdk.bulk import Access as BulkAccess
from cloister.sdk.bulk import Bulk, BulkRequest, BulkStatus
from cloister.sdk.connection import Connection
from cloister.sdk.finding import Request
from cloister.sdk.history import DataHistory, History
from cloister.sdk.home import LOCAL
from cloister.sdk.orders import Orders
from cloister.sdk.policies import Policies, RulesGiven, StandingPolicy
from cloister.sdk.private_files import PrivateFile
from cloister.sdk.processing import Processing, Run
from cloister.sdk.progress import Listener, silent
from cloister.sdk.protection import ProtectedData, Protection
from cloister.sdk.results import Result
from cloister.sdk.tasks import Tasks, TaskView
from cloister.sdk.wallet import Wallet
from cloister.sealing.keys import ContentFormat
from cloister.storage.multiaddr import parse_multiaddr


class DataProtector:
    """Protect data, grant and revoke access, run apps on it, open results.

    ``DataProtector.connect()`` uses the local network; ``connect("https://…", wallet=…)`` another. ``wallet`` is a
    :class:`Wallet`, a key file's path, or the role of a demo account (``"hospital"``). Every method raises
    :class:`cloister.errors.CloisterError` and nothing else.
    """

    def __init__(self, connection: Connection, *, on_status: Listener = silent) -> None:
        self.connection = connection
        self._tell = on_status

    @classmethod
    def connect(
        cls, network: str = LOCAL, *, wallet: Wallet | str | Path | None = None, on_status: Listener = silent
    ) -> DataProtector:
        """Open a network by name or URL."""
        return cls(Connection.open(network, wallet=wallet), on_status=on_status)

    @property
    def account(self) -> Account:
        """Balances, deposits, withdrawals."""
        return Account(self.connection)

    @property
    def apps(self) -> IApps:
        """The wallet's apps."""
        return IApps(self.connection, self._tell)

    @property
    def orders(self) -> Orders:
        """The order books."""
        return Orders(self.connection)

    @property
    def tasks(self) -> Tasks:
        """Status, waiting, logs, results, claims."""
        return Tasks(self.connection, self._tell)

    # --- data ---

    def protect_data(
        self, data: object, *, name: str = "", content_format: str = "AES256_GCM_HKDF_1MB"
    ) -> ProtectedData:
        """Encrypt ``data`` (dict, bytes, Path to a file or folder, DataFrame), store it, mint it, give its key to the SMS.

        The data streams: memory stays small whatever the size. If a step fails, the same call goes on where it stopped
        and pays nothing twice. ``content_format="AES256_CBC"`` writes what iExec's own workers can open as well.
        """
        try:
            chosen = ContentFormat(content_format)
        except ValueError:
            raise InputError(
                f"unknown content format {quoted(content_format)}", hint=", ".join(ContentFormat)
            ) from None
        return Protection(self.connection, self._tell).protect(data, name, chosen)

    def get_protected_data(
        self,
        *,
        address: str | None = None,
        owner: str | None = None,
        required_schema: Mapping[str, Any] | None = None,
        created_after: int | None = None,
    ) -> list[ProtectedData]:
        """List protected data, newest first; absent filters match anything."""
        found = self.connection.indexer.protected_data(
            address=address, owner=owner, required_schema=required_schema, created_after=created_after
        )
        return [
            ProtectedData(
                address=Address(entry.address),
                name=entry.name,
                owner=Address(entry.owner),
                schema=entry.schema,
                multiaddr=parse_multiaddr(entry.multiaddr),
                checksum=entry.checksum,
                created=entry.created,
            )
            for entry in found
        ]

    def get_history(self, protected_data: ProtectedData | str, *, complete: bool = True) -> History:
        """Every release and refusal of protected data out of the SMS's transparency log, each proven against its signed head,
        which must continue the head that this machine saw last.

        ``complete`` reads the whole log, so that nothing can be left out; without it the SMS tells the data's owner which
        entries there are, and each is proven (quicker on a long log).
        """
        return DataHistory(self.connection).read(_address(protected_data), complete=complete)

    def transfer_ownership(self, protected_data: ProtectedData | str, new_owner: str) -> str:
        """Give the data to another owner; grants of the former owner are void from then on. Returns the transaction's hash."""
        connection = self.connection
        address = _address(protected_data)
        owner = connection.datasets.owner_of_entry(address, block="latest")
        if owner is None:
            raise NotFound(f"no protected data at {address}", hint="check the address, and the network")
        if owner != connection.address:
            raise Denied(f"{address} belongs to {owner}, not to {connection.address}", hint="use its owner's wallet")
        call = connection.datasets.transfer(connection.address, Address(new_owner), address)
        return connection.sender.send(call, intent=connection.sender.fresh_intent(f"transfer:{address}")).transaction

    # --- access ---

    def grant_access(
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
        """Let ``app`` use the data for ``user`` (None: anyone), ``accesses`` times at ``price`` each.

        ``valid_from``, ``until``, ``purposes``, ``enclaves`` (kinds of hardware) and ``hardware`` (rules for the enclave's
        evidence: kinds, measurements, firmware floor, see ``cloister.attestation.rules``) are checked again at the moment of
        key release. ``logs=True`` lets whoever runs the app read what it prints, which may be the data itself.
        """
        return Access(self.connection, self._tell).grant(
            _address(protected_data),
            app=_address(app),
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

    def get_granted_access(
        self,
        *,
        protected_data: ProtectedData | str | None = None,
        app: App | str | None = None,
        user: str | None = None,
        user_strict: bool = False,
        bulk_only: bool = False,
    ) -> Iterator[Grant]:
        """Open grants; without ``protected_data`` those on all data of the wallet."""
        return Access(self.connection, self._tell).granted(
            protected_data=None if protected_data is None else _address(protected_data),
            app=None if app is None else _address(app),
            user=user,
            user_strict=user_strict,
            bulk_only=bulk_only,
        )

    def revoke_access(self, grant: Grant | str) -> str:
        """Close one grant (or the order of that hash) on chain. Returns the transaction's hash."""
        return Access(self.connection, self._tell).revoke(grant)

    def revoke_all_access(
        self, protected_data: ProtectedData | str, *, app: App | str | None = None, user: str | None = None
    ) -> list[tuple[Grant, str]]:
        """Close every open grant of the data that matches; returns each with its transaction's hash."""
        return Access(self.connection, self._tell).revoke_all(
            _address(protected_data), app=None if app is None else _address(app), user=user
        )

    def set_data_policy(self, protected_data: ProtectedData | str, rules: RulesGiven | None) -> StandingPolicy:
        """Sign hardware rules that every later release of the data's key must meet beside the grant's; None lifts them."""
        return Policies(self.connection).set(_address(protected_data), rules)

    def get_data_policy(self, protected_data: ProtectedData | str) -> StandingPolicy:
        """The hardware rules that the data's present owner signed."""
        return Policies(self.connection).show(_address(protected_data))

    # --- processing ---

    def process_protected_data(
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
        """Run ``app`` on the data in an enclave and pay for it. The result comes back sealed to this wallet.

        Everything that can be refused is refused before money moves. ``budget`` is the most that the run may cost in all: the
        cheapest orders are taken, and what the stake lacks is deposited. ``encrypt_result=False`` makes the result public;
        ``result_key``, the PEM of an RSA public key, seals it as iExec's clients open it. ``input_files`` are URLs that anyone
        can read; ``private_files`` (paths, or bytes) are sealed to the enclave.
        """
        request = Request(
            app=_address(app),
            dataset=None if protected_data is None else _address(protected_data),
            args=args,
            input_files=input_files,
            private_files=private_files,
            secrets=secrets,
            data_max_price=parse_nrlc(data_max_price),
            app_max_price=parse_nrlc(app_max_price),
            workerpool_max_price=parse_nrlc(workerpool_max_price),
            budget=None if budget is None else parse_nrlc(budget),
            workerpool=None if workerpool is None else Address(workerpool),
            user_whitelist=None if user_whitelist is None else Address(user_whitelist),
            category=category,
            trust=trust,
            purpose=purpose,
            encrypt_result=encrypt_result,
            result_key=result_key,
            callback=Address(callback),
        )
        run = Processing(self.connection, self._tell).start(request)
        return run.wait(timeout) if wait else run

    def wait_for_task_completion(
        self, task_id: str, *, deal_id: str | None = None, timeout: float | None = None
    ) -> TaskView:
        """Wait until a task ended."""
        return self.tasks.wait(task_id, deal_id=deal_id, timeout=timeout)

    def get_result_from_completed_task(self, task_id: str, *, pem_private_key: str | None = None) -> Result:
        """Download and open a completed task's result; ``pem_private_key`` opens one that is sealed to an RSA key."""
        return self.tasks.result(task_id, pem_private_key=pem_private_key)

    # --- bulk ---

    def prepare_bulk_request(
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
        """Sign one request to run ``app`` on many data, granted with ``allow_bulk``; nothing is paid yet.

        ``bulk_accesses`` are grants of ours or of iExec's clients. The request is plain JSON (``to_json``) that iExec's
        ``processBulkRequest`` takes as well, unless it has what only we know: a purpose, private files, a result for this
        wallet's own key.
        """
        request = Request(
            app=_address(app),
            dataset=None,
            args=args,
            input_files=input_files,
            private_files=private_files,
            secrets=secrets,
            app_max_price=parse_nrlc(app_max_price),
            workerpool_max_price=parse_nrlc(workerpool_max_price),
            workerpool=None if workerpool is None else Address(workerpool),
            category=category,
            trust=trust,
            purpose=purpose,
            encrypt_result=encrypt_result,
            result_key=result_key,
        )
        return Bulk(self.connection, self._tell).prepare(
            bulk_accesses, request, max_per_task=max_protected_data_per_task
        )

    def process_bulk_request(
        self,
        bulk_request: BulkRequest | Mapping[str, Any],
        *,
        workerpool: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> list[Run]:
        """Make and pay the deals of a bulk request; one run for each slice, in order. Calling again pays nothing twice."""
        runs = Bulk(self.connection, self._tell).process(
            _bulk(bulk_request), workerpool=None if workerpool is None else Address(workerpool)
        )
        return [run.wait(timeout) for run in runs] if wait else runs

    def inspect_bulk_request(self, bulk_request: BulkRequest | Mapping[str, Any]) -> BulkStatus:
        """Where each slice of a bulk request stands; each run's ``result.bulk_items()`` says what became of each data."""
        return Bulk(self.connection, self._tell).inspect(_bulk(bulk_request))


def _address(thing: ProtectedData | App | str) -> Address:
    return Address(thing) if isinstance(thing, str) else thing.address


def _bulk(request: BulkRequest | Mapping[str, Any]) -> BulkRequest:
    return request if isinstance(request, BulkRequest) else BulkRequest.parse(request)
