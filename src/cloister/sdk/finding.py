"""Finding what a run needs on the market, and checking all that can be checked before money moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Conflict, Denied, NotFound
from cloister.protocol.codec import ZERO_ADDRESS, Address
from cloister.protocol.matching import Match, match_orders
from cloister.protocol.orders import AppOrder, DatasetOrder, OrderKind, RequestOrder, WorkerpoolOrder
from cloister.protocol.tags import TEE
from cloister.protocol.units import Nrlc, format_rlc
from cloister.sdk.connection import Connection
from cloister.sdk.private_files import PrivateFile

if TYPE_CHECKING:
    from cloister.clients.market import OrderRecord


@dataclass(frozen=True, slots=True)
class Request:
    """What a requester wants. Prices are the most they pay per task; ``purpose`` is checked against the grant's policy.

    ``private_files`` are sealed and take the place of ``input_files``: a request has the one or the other.
    ``result_key`` is the PEM of an RSA public key: the result is then sealed as iExec's clients open it. ``budget`` is the
    most that all of it may cost together; single prices that are 0 then have no limit of their own.
    """

    app: Address
    dataset: Address | None
    args: str | None = None
    input_files: Sequence[str] = ()
    private_files: Sequence[PrivateFile] = ()
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
    result_key: str | None = None
    callback: Address = ZERO_ADDRESS
    budget: Nrlc | None = None

    def limit(self, price: Nrlc) -> Nrlc:
        """The most that one part of the request may cost."""
        return price if self.budget is None or price > 0 else self.budget


class OrderFinder:
    """Finds the cheapest orders that fit, for the connection's wallet as requester."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def app_order(self, request: Request) -> AppOrder:
        """The cheapest app order at the price or below.

        Raises:
            NotFound: there is none, or none at the price.
        """
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
            if record.order.appprice <= request.limit(request.app_max_price):
                return record.order
            cheapest = record.order.appprice if cheapest is None else min(cheapest, record.order.appprice)
        if cheapest is not None:
            raise NotFound(
                f"no app order found for the desired price: {request.app} costs {format_rlc(cheapest)}, "
                f"you allow {format_rlc(request.limit(request.app_max_price))}",
                hint="raise app_max_price (--app-price)",
            )
        if self._connection.apps.owner_of_entry(request.app, block="latest") is None:
            raise NotFound(f"no app deployed at {request.app}", hint="check the address, and the network")
        raise NotFound(f"no app order found for {request.app}", hint="its owner must publish it: cloister iapp publish")

    def dataset_order(self, request: Request) -> DatasetOrder | None:
        """The cheapest grant for this requester and app; None when the request names no dataset.

        Raises:
            Denied: nothing is granted, or it was revoked. NotFound: none at the price, or no such data.
        """
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
                if record.order.datasetprice <= request.limit(request.data_max_price):
                    return record.order
                cheapest = record.order.datasetprice if cheapest is None else min(cheapest, record.order.datasetprice)
        if cheapest is not None:
            raise NotFound(
                f"no dataset order found for the desired price: {request.dataset} costs {format_rlc(cheapest)}, "
                f"you allow {format_rlc(request.limit(request.data_max_price))}",
                hint="raise data_max_price (--data-price)",
            )
        what = "the access was revoked" if revoked else "no access is granted, or it was revoked or used up"
        raise Denied(
            f"{what}: {connection.address} may not use {request.dataset} with app {request.app}",
            hint="ask its owner for a grant: cloister access grant",
            code="no-grant",
        )

    def workerpool_order(self, request: Request, app: AppOrder) -> WorkerpoolOrder:
        """The cheapest workerpool order of the category at the price or below.

        Raises:
            NotFound: there is none, or none at the price.
        """
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
            if record.order.workerpoolprice <= request.limit(request.workerpool_max_price):
                return record.order
            price = record.order.workerpoolprice
            cheapest = price if cheapest is None else min(cheapest, price)
        if cheapest is not None:
            raise NotFound(
                f"no workerpool order found for the desired price: the cheapest costs {format_rlc(cheapest)}, "
                f"you allow {format_rlc(request.limit(request.workerpool_max_price))}",
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

    def check(
        self, app: AppOrder, dataset: DatasetOrder | None, workerpool: WorkerpoolOrder, request: RequestOrder
    ) -> Match:
        """The contract's own checks, made here first: they cost nothing and say more."""
        facts = self._connection.hub.matching_facts(app, dataset, workerpool, request, block="latest")
        return match_orders(app, dataset, workerpool, request, facts)

    def check_budget(self, matching: Match, budget: Nrlc) -> None:
        """Whether all parts together cost no more than the requester allows.

        Raises:
            NotFound: they do.
        """
        if matching.total_price > budget:
            raise NotFound(
                f"the cheapest orders cost {format_rlc(matching.total_price)} together, your budget is {format_rlc(budget)}",
                hint="raise budget (--budget)",
            )

    def check_stake(self, matching: Match) -> None:
        """Whether the requester can pay.

        Raises:
            Conflict: the stake is too low.
        """
        connection = self._connection
        stake = connection.hub.account(connection.address, block="latest").stake
        if matching.total_price > stake:
            raise Conflict(
                f"cost per task ({format_rlc(matching.total_price)}) is greater than requester account stake "
                f"({format_rlc(stake)}). orders can't be matched",
                hint=f'cloister account deposit "{format_rlc(matching.total_price - stake)}"',
                code="stake-too-low",
            )
