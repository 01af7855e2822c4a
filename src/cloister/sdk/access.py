"""Granting and revoking: a grant is a signed dataset order, published on the market; revoking closes it on chain."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from cloister.errors import Denied, InputError, NotFound
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.orders import DatasetOrder, Operation, OrderKind, sign_order
from cloister.protocol.policies import AccessPolicy, policy_salt
from cloister.protocol.tags import TEE
from cloister.protocol.units import INFINITE_VOLUME, Nrlc, parse_nrlc
from cloister.sdk.connection import Connection
from cloister.sdk.policies import RulesGiven, check_rules
from cloister.sdk.progress import Listener, Progress

When = str | int | date | datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """A dataset order on the market. ``remaining`` is how many accesses are left; ``user`` is None for anyone."""

    order: DatasetOrder
    order_hash: Bytes32
    remaining: int
    policy: AccessPolicy | None = None

    @property
    def protected_data(self) -> Address:
        """The dataset."""
        return self.order.dataset

    @property
    def app(self) -> Address:
        """The app (or whitelist) that may use it."""
        return self.order.apprestrict

    @property
    def user(self) -> Address | None:
        """The requester that may use it."""
        return None if self.order.requesterrestrict == ZERO_ADDRESS else self.order.requesterrestrict

    @property
    def price(self) -> Nrlc:
        """Price of one access."""
        return Nrlc(self.order.datasetprice)

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {
            "order_hash": self.order_hash,
            "protected_data": self.protected_data,
            "app": self.app,
            "user": self.user,
            "price": self.price,
            "accesses": self.order.volume,
            "remaining": self.remaining,
            "policy": None if self.policy is None else self.policy.to_json(),
            "order": self.order.to_json(),
        }


class Access:
    """Grants on the connection's data."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._tell = listener

    def grant(
        self,
        protected_data: str,
        *,
        app: str,
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
        """Let ``app`` (an app or an ERC-734 whitelist) use the data for ``user`` (None: anyone), ``accesses`` times.

        Raises:
            NotFound: no such protected data, or nothing deployed at ``app``.
            Denied: the wallet does not own the data.
            InputError: a value is out of range.
        """
        connection = self._connection
        dataset = Address(protected_data)
        app_address = Address(app)
        if allow_bulk:
            if parse_nrlc(price) != 0:
                raise InputError(f"bulk access is free, but the price is {price}", hint="price=0 with allow_bulk")
            accesses = INFINITE_VOLUME
        if not 1 <= accesses <= INFINITE_VOLUME:
            raise InputError(f"accesses must be 1 to {INFINITE_VOLUME}, not {accesses}", hint="for example accesses=10")
        self._check_owner(dataset)
        self._check_app(app_address)
        rules = None if hardware is None else check_rules(hardware).canonical
        policy = self._policy(valid_from, until, purposes, enclaves, rules, logs=logs)
        self._tell(Progress("CREATE_DATASET_ORDER"))
        salt = Bytes32.from_raw(secrets.token_bytes(32)) if policy is None else policy_salt(policy)
        order = sign_order(
            DatasetOrder(
                dataset=dataset,
                datasetprice=parse_nrlc(price),
                volume=accesses,
                tag=TEE,
                apprestrict=app_address,
                workerpoolrestrict=ZERO_ADDRESS,
                requesterrestrict=ZERO_ADDRESS if user is None else Address(user),
                salt=salt,
            ),
            connection.signer,
            connection.domain,
        )
        self._tell(Progress("CREATE_DATASET_ORDER", finished=True))
        self._tell(Progress("PUBLISH_DATASET_ORDER"))
        if policy is not None:  # before the order: an order whose policy the SMS lacks would be refused at release
            connection.sms.put_policy(policy, connection.signer)
        order_hash = connection.market.publish(order, connection.signer)
        self._tell(Progress("PUBLISH_DATASET_ORDER", finished=True, detail=order_hash))
        return Grant(order, order_hash, accesses, policy)

    def granted(
        self,
        *,
        protected_data: str | None = None,
        app: str | None = None,
        user: str | None = None,
        user_strict: bool = False,
        bulk_only: bool = False,
    ) -> Iterator[Grant]:
        """Open grants on the market, cheapest first. Absent filters match anything."""
        owner = None
        if protected_data is None:
            owner = self._connection.address
        records = self._connection.market.orders(
            OrderKind.DATASET,
            dataset=protected_data,
            dataset_owner=owner,
            app=app or "any",
            requester=user or "any",
            workerpool="any",
            requester_strict=user_strict,
            app_strict=app is not None,
            bulk_only=bulk_only,
        )
        for record in records:
            if isinstance(record.order, DatasetOrder):
                yield Grant(record.order, record.order_hash, record.remaining)

    def revoke(self, grant: Grant | str) -> str:
        """Close a grant on chain, for good. Returns the transaction's hash; revoking twice is harmless.

        Raises:
            NotFound: the market knows no such order.
            Denied: the wallet does not own the data.
        """
        connection = self._connection
        if isinstance(grant, str):
            record = connection.market.order(OrderKind.DATASET, grant)
            if not isinstance(record.order, DatasetOrder):
                raise NotFound(f"{grant} is no dataset order")
            order = record.order
        else:
            order = grant.order
        self._check_owner(order.dataset)
        self._tell(Progress("REVOKE_ONE_ACCESS"))
        order_hash = order.hash(connection.domain)
        call = connection.hub.manage_order(order, Operation.CLOSE)
        receipt = connection.sender.send(call, intent=f"close:{order_hash}")
        self._tell(Progress("REVOKE_ONE_ACCESS", finished=True, detail=receipt.transaction))
        return receipt.transaction

    def revoke_all(
        self, protected_data: str, *, app: str | None = None, user: str | None = None
    ) -> list[tuple[Grant, str]]:
        """Close every open grant of the data that matches; returns each with its transaction's hash."""
        self._tell(Progress("RETRIEVE_ALL_GRANTED_ACCESS"))
        grants = list(self.granted(protected_data=protected_data, app=app, user=user))
        self._tell(Progress("RETRIEVE_ALL_GRANTED_ACCESS", finished=True, detail=f"{len(grants)} found"))
        return [(grant, self.revoke(grant)) for grant in grants]

    def _check_owner(self, dataset: Address) -> None:
        owner = self._connection.datasets.owner_of_entry(dataset, block="latest")
        if owner is None:
            raise NotFound(f"no protected data at {dataset}", hint="check the address, and the network")
        if owner != self._connection.address:
            raise Denied(
                f"{dataset} belongs to {owner}, not to {self._connection.address}", hint="use its owner's wallet"
            )

    def _check_app(self, app: Address) -> None:
        if app == ZERO_ADDRESS:
            raise InputError("a grant needs an app", hint="the address of an app or of a whitelist")
        connection = self._connection
        registered = connection.apps.owner_of_entry(app, block="latest") is not None
        if not registered and not connection.rpc.code(app, block="latest"):
            raise NotFound(
                f"invalid authorized app address {app}: no app or whitelist smart contract deployed at address",
                hint="deploy the app first: cloister iapp deploy",
            )

    @staticmethod
    def _policy(
        valid_from: When | None,
        until: When | None,
        purposes: Sequence[str],
        enclaves: Sequence[str],
        hardware: str | None,
        *,
        logs: bool,
    ) -> AccessPolicy | None:
        if valid_from is None and until is None and not purposes and not enclaves and hardware is None and not logs:
            return None
        return AccessPolicy(
            valid_from=None if valid_from is None else _timestamp(valid_from),
            valid_until=None if until is None else _timestamp(until),
            purposes=tuple(purposes),
            enclaves=tuple(enclaves),
            hardware=hardware,
            logs=logs,
            nonce=secrets.token_bytes(16),
        )


def _timestamp(when: When) -> int:
    """Unix seconds of a moment: seconds, ISO 8601 text, a date (its first instant in UTC) or a datetime (UTC if naive)."""
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise InputError(
                f"not a time: {when}", hint='for example "2027-01-01" or "2027-01-01T12:00:00+01:00"'
            ) from None
    if isinstance(when, datetime):
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    if isinstance(when, date):
        return int(datetime.combine(when, time.min, UTC).timestamp())
    return when
