"""Where backends are named: settings, databases and chain readers of each service, joined on one origin."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cloister.attestation.reference import build_reference
from cloister.chain.contracts import Hub
from cloister.chain.events import Cursor, EventReader
from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.clients.collateral import CollateralClient, SourcedCollateral
from cloister.clients.market import MarketClient
from cloister.errors import NotFound
from cloister.network.accounts import Accounts, load_accounts
from cloister.network.collateral import build_collateral
from cloister.network.compass import FILE_NAME as COMPASS_FILE
from cloister.network.compass import save_compass
from cloister.network.enclaves import choice_of, reference_values
from cloister.network.part import NetworkPart
from cloister.network.state import NetworkState
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.networks import NetworkDescription
from cloister.protocol.orders import DatasetOrder, OrderKind
from cloister.sdk.home import load_description
from cloister.sdk.receipts import ReferenceValues
from cloister.services.application import BackgroundServer, build_application, serve
from cloister.services.compass.part import build_compass_part
from cloister.services.compass.settings import CompassSettings
from cloister.services.database import Database, open_database
from cloister.services.gateway.http import GatewayPart
from cloister.services.gateway.settings import GatewaySettings
from cloister.services.indexer.part import build_indexer_part
from cloister.services.indexer.watcher import Contracts
from cloister.services.market.chain_ledger import ChainMarketLedger
from cloister.services.market.part import MarketSettings, build_market_part
from cloister.services.part import Part
from cloister.services.resultproxy.ledger import ChainResultLedger
from cloister.services.resultproxy.part import build_result_proxy_part
from cloister.services.resultproxy.settings import ResultProxySettings
from cloister.services.resultproxy.signing_key import create_signing_key
from cloister.services.scheduler.part import build_scheduler_part
from cloister.services.scheduler.settings import SchedulerSettings
from cloister.services.sms.chain_ledger import ChainLedger
from cloister.services.sms.kek import create_local_kek
from cloister.services.sms.part import build_sms_part
from cloister.services.sms.settings import SmsSettings
from cloister.storage.kubo import KuboStore

SERVICES = ("market", "sms", "scheduler", "indexer", "gateway", "compass", "resultproxy", "collateral")

IEXEC_WORKERPOOLS = (
    Address("0xB967057a21dc6A66A29721d96b8Aa7454B7c383F"),
    Address("0x2956f0cb779904795a5f30d3b3ea88b714c3123f"),
)
"""Workerpools that iExec's DataProtector and Web3Mail have built in for chain 421614; ours stands in for them (ADR 0011)."""


@dataclass(frozen=True, slots=True)
class Backends:
    """What the services of one local network stand on."""

    description: NetworkDescription
    accounts: Accounts
    state: NetworkState
    rpc: JsonRpc
    values: ReferenceValues

    @property
    def content(self) -> KuboStore:
        """The network's content, through its gateway: what is read is proven by CID wherever the gateway runs."""
        gateway = self.description.services.gateway
        return KuboStore(gateway, gateway)

    def database(self, service: str) -> Database:
        """The service's own database file."""
        return open_database(self.state.path("services", f"{service}.sqlite"))

    def follow(self, *addresses: Address) -> Callable[[Cursor | None], EventReader]:
        """Make event readers over contracts, from a stored cursor or from the network's first block."""
        start = self.description.start_block
        return lambda cursor: EventReader(self.rpc, addresses, from_block=start, cursor=cursor)


def build_part(service: str, backends: Backends) -> Part:
    """One service of the network."""
    match service:
        case "market":
            return _market(backends)
        case "sms":
            return _sms(backends)
        case "scheduler":
            return _scheduler(backends)
        case "indexer":
            return _indexer(backends)
        case "resultproxy":
            return _result_proxy(backends)
        case "collateral":
            return _collateral(backends)
        case "compass":
            path = backends.state.path(COMPASS_FILE)
            save_compass(path, backends.description)
            return build_compass_part(CompassSettings(backends.description.chain_id, path))
        case _:
            return GatewayPart(GatewaySettings(root=backends.state.path("content", "x").parent))


def _market(backends: Backends) -> Part:
    contracts = backends.description.contracts
    chain_id = backends.description.chain_id
    return build_market_part(
        MarketSettings(
            chain_id=chain_id,
            hub=contracts.hub,
            app_registry=contracts.app_registry,
            dataset_registry=contracts.dataset_registry,
            workerpool_registry=contracts.workerpool_registry,
            stand_ins=dict.fromkeys(IEXEC_WORKERPOOLS, backends.description.workerpool),
        ),
        database=backends.database("market"),
        ledger=ChainMarketLedger(backends.rpc, contracts.hub),
        source=backends.follow(
            contracts.hub, contracts.app_registry, contracts.dataset_registry, contracts.workerpool_registry
        ),
    )


def _sms(backends: Backends) -> Part:
    description = backends.description
    return build_sms_part(
        SmsSettings(
            chain_id=description.chain_id,
            hub=description.contracts.hub,
            teebroker=backends.accounts.key("sms"),
            policy=backends.values.policy,
            collateral=SourcedCollateral(backends.values.collateral, CollateralClient(description.origin)),
        ),
        database=backends.database("sms"),
        kek=create_local_kek(backends.state.path("services", "sms.kek")),
        ledger=ChainLedger(backends.rpc, description.contracts.hub),
        content=backends.content,
    )


def _collateral(backends: Backends) -> Part:
    description, sms = backends.description, backends.accounts.key("sms")
    reference = build_reference(
        backends.values.to_json(),
        chain_id=description.chain_id,
        hub=description.contracts.hub.raw,
        sms=sms.address.raw,
        issued_at=int(time.time()),
        sign=sms.sign_message,
    )
    return build_collateral(backends.state, backends.values, reference)


def _result_proxy(backends: Backends) -> Part:
    description = backends.description
    settings = ResultProxySettings(chain_id=description.chain_id, hub=description.contracts.hub)
    return build_result_proxy_part(
        settings,
        database=backends.database("resultproxy"),
        ledger=ChainResultLedger(
            backends.rpc, description.contracts.hub, max_head_age=settings.max_head_age, clock=time.time
        ),
        content=backends.content,
        signing_key=create_signing_key(backends.state.path("services", "resultproxy.key")),
    )


def _scheduler(backends: Backends) -> Part:
    description, key = backends.description, backends.accounts.key("scheduler")
    hub = Hub(backends.rpc, description.contracts.hub)
    journal = Journal(backends.state.path("journals", f"{description.chain_id}-{key.address.lower()}.sqlite"))
    return build_scheduler_part(
        SchedulerSettings(
            chain_id=description.chain_id,
            hub=description.contracts.hub,
            workerpools=(description.workerpool,),
            workers=frozenset({backends.accounts.key("worker").address}),
            from_block=description.start_block,
        ),
        database=backends.database("scheduler"),
        key=key,
        hub=hub,
        sender=TransactionSender(backends.rpc, key, journal),
        orders=_MarketOrders(MarketClient(description.services.market, description.chain_id)),
    )


def _indexer(backends: Backends) -> Part:
    contracts = backends.description.contracts
    return build_indexer_part(
        Contracts(
            hub=contracts.hub,
            app_registry=contracts.app_registry,
            dataset_registry=contracts.dataset_registry,
            workerpool_registry=contracts.workerpool_registry,
            dataprotector=contracts.dataprotector,
        ),
        database=backends.database("indexer"),
        rpc=backends.rpc,
        from_block=backends.description.start_block,
        content=backends.content,
    )


@dataclass(frozen=True, slots=True)
class _MarketOrders:
    """Finds dataset orders on the market, for deals whose call data hides them."""

    market: MarketClient

    def find(self, order_hash: Bytes32) -> DatasetOrder | None:
        """The order of that hash, or None."""
        try:
            order = self.market.order(OrderKind.DATASET, order_hash).order
        except NotFound:
            return None
        return order if isinstance(order, DatasetOrder) else None


class Composition:
    """The services of a local network, served from threads of this process."""

    def __init__(self, backends: Backends) -> None:
        parts: list[Part] = [build_part(service, backends) for service in SERVICES]
        parts.append(NetworkPart(backends.description, backends.values))
        self._application = build_application(parts)
        self._server: BackgroundServer | None = None

    def start(self, port: int) -> None:
        """Serve on loopback; returns when requests are answered.

        Raises:
            ConfigurationError: the port is taken.
        """
        self._server = BackgroundServer(self._application, host="127.0.0.1", port=port)
        self._server.start()

    def stop(self) -> None:
        """Answer what is under way, then stop every part."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def load_backends(name: str) -> Backends:
    """The backends of a network whose state lies on this machine.

    Raises:
        NotFound: there is none of that name.
    """
    description, state = load_description(name), NetworkState(name)
    accounts = load_accounts(state.path("accounts.json"))
    values = reference_values(state, choice_of(description.enclave_kind))
    return Backends(description, accounts, state, JsonRpc(description.rpc_url), values)


def serve_part(service: str, backends: Backends, *, host: str, port: int) -> None:
    """Serve one part in the foreground until a signal."""
    serve(build_application([build_part(service, backends)]), host=host, port=port)
