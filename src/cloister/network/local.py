"""A whole network in one place: chain, contracts, services on one origin, one worker. ``cloister up`` is this class.

Everything lies in ``networks/<name>/`` of the home folder and is made once: keys, test root, contracts, workerpool. Each
step is idempotent, so a start that was cut short is simply repeated.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloister.chain.calls import Call
from cloister.chain.contracts import Hub, Registry, Rlc
from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.errors import CloisterError, ConfigurationError, Conflict, LocalError, VerificationError
from cloister.network.accounts import DEMO_ROLES, Accounts, load_accounts
from cloister.network.anvil import ChainOptions, LocalChain
from cloister.network.children import die_with_parent, stop_process
from cloister.network.composition import Backends, Composition
from cloister.network.deployment import Deployment, Settings, deploy
from cloister.network.enclaves import EnclaveChoice, reference_values
from cloister.network.state import NetworkState
from cloister.protocol.codec import Address
from cloister.protocol.networks import ContractAddresses, NetworkDescription, ServiceUrls
from cloister.protocol.orders import OrderKind, WorkerpoolOrder
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import SCONE, TEE, TEE_TDX
from cloister.protocol.units import Nrlc, format_rlc, parse_nrlc
from cloister.sdk.connection import Connection
from cloister.sdk.orders import Orders
from cloister.sdk.wallet import Wallet

logger = logging.getLogger(__name__)

OPERATORS = ("deployer", "scheduler", "worker", "sms")
"""Roles whose transactions are sent by this package alone."""
ETHER = 10**18
GAS_MONEY = 10 * ETHER
POOR = ETHER
FOREIGN_GAS_MONEY = ETHER // 20
"""Ether for each account on a chain that is not ours, in wei."""
DEMO_RLC = parse_nrlc("1000 RLC")
POOL_STAKE = parse_nrlc("1000 RLC")
RUN_PRICE = parse_nrlc("0.02 RLC")
POOL_VOLUME = 100_000
POOL_NAME = "cloister local workerpool"
POOL_CATEGORIES = (0, 1)
POOL_TAGS = (TEE_TDX, TEE | SCONE)
"""One order for today's clients and one for those that still ask for SCONE by name; the enclave is the same."""
WORKER_STOP_SECONDS = 25.0
WORKER_RESTART_SECONDS = 1.0
WORKER_PAUSE_CAP = 60.0
"""A worker that cannot live here is tried again less and less often."""

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How to run. Port 0 takes a free one. ``rpc_url``: a chain that runs already; ``deployer_key``: who pays there."""

    name: str = "local"
    port: int = 7300
    chain_port: int = 8545
    block_time: float = 0.2
    rpc_url: str | None = None
    deployer_key: Path | None = None
    slots: int = 2
    run_price: Nrlc = RUN_PRICE
    """What the workerpool asks for one task."""
    enclave: EnclaveChoice = EnclaveChoice.BUBBLEWRAP
    connect_to: Mapping[str, str] = field(default_factory=dict)
    """Where the worker leads connections of apps, ``host:port`` -> ``host:port``."""
    app_network: bool = True
    """Whether the worker runs apps that name hosts to connect to."""


class LocalNetwork:
    """One network. ``start`` returns when it is ready; ``stop`` leaves everything durable."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._state = NetworkState(options.name)
        self._chain: LocalChain | None = None
        self._composition: Composition | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._worker_again = 0.0
        self._worker_deaths = 0
        self._description: NetworkDescription | None = None
        self._accounts: Accounts | None = None
        self._rpc: JsonRpc | None = None
        self.ready_seconds = 0.0

    @property
    def description(self) -> NetworkDescription:
        """What clients need to know."""
        if self._description is None:
            raise LocalError("the network has not started")
        return self._description

    @property
    def worker_process(self) -> int | None:
        """Process id of the worker, while it runs."""
        return None if self._worker is None or self._worker.poll() is not None else self._worker.pid

    def start(self, announce: Announce = lambda _: None) -> None:
        """Bring everything up.

        Raises:
            Conflict: it runs already. ConfigurationError: a port is taken or a program is missing.
            UnavailableError: a part did not come up.
        """
        started = time.monotonic()
        self._state.hold()
        try:
            self._start(announce)
        except BaseException:
            self.stop()
            raise
        self.ready_seconds = time.monotonic() - started

    def _start(self, announce: Announce) -> None:
        options = self._options
        self._accounts = accounts = load_accounts(self._state.path("accounts.json"))
        rpc_url = options.rpc_url or self._start_chain()
        self._rpc = rpc = JsonRpc(rpc_url)
        announce("chain is up; deploying the contracts where they are missing")
        deployment = self._deploy(rpc, accounts)
        workerpool = self._settle(rpc, accounts, deployment)
        port = options.port or _free_port()
        origin = f"http://127.0.0.1:{port}"
        self._description = description = NetworkDescription(
            name=options.name,
            chain_id=rpc.chain_id,
            rpc_url=rpc_url,
            origin=origin,
            services=ServiceUrls.at(origin),
            contracts=ContractAddresses(
                hub=deployment.hub,
                rlc=deployment.rlc,
                app_registry=deployment.app_registry,
                dataset_registry=deployment.dataset_registry,
                workerpool_registry=deployment.workerpool_registry,
                dataprotector=deployment.dataprotector,
            ),
            workerpool=workerpool,
            enclave_kind=options.enclave.kind.value,
            teebroker=accounts.key("sms").address,
            start_block=deployment.block,
        )
        announce("starting market, SMS, scheduler, indexer and storage gateway")
        values = reference_values(self._state, options.enclave, announce)
        self._composition = Composition(Backends(description, accounts, self._state, rpc, values))
        self._composition.start(port)
        self._state.save_documents(description, values)
        self._offer_service()
        announce("starting the worker")
        self._start_worker()

    def stop(self) -> None:
        """Stop worker, services and chain, in that order, and give the folder back. Safe to call twice."""
        if self._worker is not None:
            stop_process(self._worker, WORKER_STOP_SECONDS)
            self._worker = None
        if self._composition is not None:
            self._composition.stop()
            self._composition = None
        if self._chain is not None:
            self._chain.stop()
            self._chain = None
        self._state.release()

    def check(self) -> None:
        """Look after the worker: one that died is started again. Called about twice a second."""
        worker = self._worker
        if worker is None or worker.poll() is None:
            return
        if time.monotonic() < self._worker_again:
            return
        pause = min(WORKER_PAUSE_CAP, WORKER_RESTART_SECONDS * 2**self._worker_deaths)
        self._worker_deaths += 1
        self._worker_again = time.monotonic() + pause
        logger.warning("the worker ended (exit %s) and is started again; see %s", worker.returncode, self._worker_log())
        self._start_worker()

    def demo_addresses(self) -> dict[str, Address]:
        """Demo roles and their addresses."""
        accounts = self._held_accounts()
        return {role: accounts.key(role).address for role in DEMO_ROLES}

    def demo_rows(self) -> list[tuple[str, str, str, str]]:
        """Role, address, RLC in the wallet and staked, for people."""
        description = self.description
        rpc = JsonRpc(description.rpc_url)
        hub, rlc = Hub(rpc, description.contracts.hub), Rlc(rpc, description.contracts.rlc)
        block = rpc.block_number()
        return [
            (
                role,
                str(address),
                format_rlc(rlc.balance_of(address, block=block)),
                format_rlc(hub.account(address, block=block).stake),
            )
            for role, address in self.demo_addresses().items()
        ]

    # --- chain ---

    def _start_chain(self) -> str:
        options = self._options
        self._chain = LocalChain(
            ChainOptions(
                self._state.path("chain", "x").parent,
                options.chain_port or _free_port(),
                block_time=options.block_time,
                operators=frozenset(self._held_accounts().key(role).address for role in OPERATORS),
            )
        )
        self._chain.start()
        return self._chain.url

    def _held_accounts(self) -> Accounts:
        if self._accounts is None:
            raise LocalError("the network has not started")
        return self._accounts

    def _sender(self, rpc: JsonRpc, key: PrivateKey) -> TransactionSender:
        return TransactionSender(
            rpc, key, Journal(self._state.path("journals", f"{rpc.chain_id}-{key.address.lower()}.sqlite"))
        )

    def _deploy(self, rpc: JsonRpc, accounts: Accounts) -> Deployment:
        deployer = accounts.key("deployer")
        self._fund(rpc, [deployer.address], GAS_MONEY)
        try:
            return deploy(rpc, self._sender(rpc, deployer), Settings(teebroker=accounts.key("sms").address))
        except VerificationError as error:
            raise Conflict(
                f"the contracts of network {self._options.name} are not this version's: {error.message}",
                hint=f"start anew with --name OTHER, or remove {self._state.folder}",
            ) from error

    def _fund(self, rpc: JsonRpc, addresses: list[Address], amount: int) -> None:
        """Give ether for gas: out of nothing on our own chain, from the named deployer's key elsewhere."""
        poor = [address for address in addresses if rpc.balance(address, block="latest") < min(amount, POOR) // 2]
        if not poor:
            return
        if self._chain is not None or self._is_development_node(rpc):
            method = "anvil_setBalance" if self._chain is not None else f"{self._development_prefix(rpc)}_setBalance"
            for address in poor:
                rpc.call(method, str(address), hex(amount))
            return
        key_file = self._options.deployer_key
        if key_file is None:
            raise ConfigurationError(
                f"{poor[0]} has no ether on chain {rpc.chain_id}",
                hint="give --deployer-key FILE of an account with ether",
            )
        payer = self._sender(rpc, Wallet.from_file(key_file).key)
        for address in poor:
            payer.send(Call(address, b"", FOREIGN_GAS_MONEY), intent=payer.fresh_intent(f"fund:{address}"))

    @staticmethod
    def _development_prefix(rpc: JsonRpc) -> str:
        try:
            client = str(rpc.call("web3_clientVersion")).lower()
        except CloisterError:
            return ""
        return "anvil" if client.startswith("anvil") else "hardhat" if client.startswith("hardhat") else ""

    def _is_development_node(self, rpc: JsonRpc) -> bool:
        return bool(self._development_prefix(rpc))

    # --- what a network needs before its first task ---

    def _settle(self, rpc: JsonRpc, accounts: Accounts, deployment: Deployment) -> Address:
        """Fund the accounts, stake for the workerpool's owner, register the workerpool. Returns its address."""
        own_chain = self._chain is not None or self._is_development_node(rpc)
        self._fund(rpc, [key.address for key in accounts.keys.values()], GAS_MONEY if own_chain else FOREIGN_GAS_MONEY)
        rlc, hub = Rlc(rpc, deployment.rlc), Hub(rpc, deployment.hub)
        bank = self._sender(rpc, accounts.key("deployer"))
        gifts = dict.fromkeys(DEMO_ROLES, DEMO_RLC) | {"scheduler": POOL_STAKE}
        tickets = []
        for role, amount in gifts.items():
            address = accounts.key(role).address
            held = rlc.balance_of(address, block="latest") + hub.account(address, block="latest").stake
            if held == 0:
                tickets.append(bank.submit(rlc.transfer(address, amount), intent=f"gift:{deployment.hub}:{role}"))
        for ticket in tickets:
            bank.wait(ticket)
        owner = self._sender(rpc, accounts.key("scheduler"))
        account = hub.account(owner.address, block="latest")
        wallet = rlc.balance_of(owner.address, block="latest")
        if account.stake + account.locked == 0 and wallet:
            owner.send(rlc.approve_and_call(deployment.hub, wallet), intent=f"stake:{deployment.hub}")
        registry = Registry(rpc, deployment.workerpool_registry)
        workerpool = registry.predict_workerpool(owner.address, POOL_NAME, block="latest")
        if registry.owner_of_entry(workerpool, block="latest") is None:
            owner.send(registry.create_workerpool(owner.address, POOL_NAME), intent=f"workerpool:{workerpool}")
        return workerpool

    def _offer_service(self) -> None:
        """Keep one open workerpool order at today's price for each of the shortest categories and each tag."""
        connection = Connection(self.description, Wallet(self._held_accounts().key("scheduler")))
        orders, price = Orders(connection), self._options.run_price
        for category, tag in itertools.product(POOL_CATEGORIES, POOL_TAGS):
            offered = orders.list(
                OrderKind.WORKERPOOL,
                workerpool=self.description.workerpool,
                category=category,
                app="any",
                dataset="any",
                requester="any",
                min_tag=tag,
                max_tag=tag,
            )
            stands = False
            for record in list(offered):
                if isinstance(record.order, WorkerpoolOrder) and record.order.workerpoolprice == price:
                    stands = True
                else:
                    connection.market.unpublish(OrderKind.WORKERPOOL, record.order_hash, connection.signer)
            if not stands:
                # The market refuses an order that the owner's stake does not cover: 30 % of price x volume.
                stake = connection.hub.account(connection.address, block="latest").stake
                volume = min(POOL_VOLUME, max(1, stake * 10 // 3 // max(price, 1) // 4))
                orders.publish_workerpool(
                    self.description.workerpool, price=price, category=category, volume=volume, tag=tag
                )

    def _worker_log(self) -> Path:
        return self._state.path("logs", "worker.log")

    def _start_worker(self) -> None:
        log = self._worker_log().open("ab")
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "CLOISTER_HOME")
        }
        self._worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cloister.cli.main",
                "serve",
                "worker",
                "--network",
                self._options.name,
                "--slots",
                str(self._options.slots),
                "--enclave",
                self._options.enclave.value,
                *(f"--connect-to={name}={place}" for name, place in self._options.connect_to.items()),
                *([] if self._options.app_network else ["--no-app-network"]),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  (the child only calls prctl)
        )
        log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
