"""Composes the worker of a local network and runs it until it is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from cloister.chain.contracts import Hub
from cloister.chain.journal import Journal as TransactionJournal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.clients.scheduler import SchedulerClient
from cloister.clients.sms import SmsClient
from cloister.errors import ConfigurationError
from cloister.network.accounts import load_accounts
from cloister.network.enclaves import EnclaveChoice, build_runtime, choice_of, describe_runtime, note_runtime
from cloister.network.state import NetworkState
from cloister.sdk.home import load_description
from cloister.storage.kubo import KuboStore
from cloister.worker.daemon import Worker
from cloister.worker.enclaves import Enclaves
from cloister.worker.execution import Platform
from cloister.worker.fetching import ContentFetcher
from cloister.worker.journal import Journal
from cloister.worker.settings import WorkerSettings


def run_worker(
    name: str,
    *,
    slots: int,
    connect_to: Mapping[str, str] | None = None,
    app_network: bool = True,
    enclave: EnclaveChoice | None = None,
) -> None:
    """Run the worker of the network ``name`` until SIGTERM or SIGINT.

    Raises:
        NotFound: no such network here.
        ConfigurationError: this machine cannot run its enclaves, or another worker has the state.
    """
    description = load_description(name)
    state = NetworkState(name)
    key = load_accounts(state.path("accounts.json")).key("worker")
    contracts = description.contracts
    rpc = JsonRpc(description.rpc_url)
    settings = WorkerSettings(
        workerpool=description.workerpool,
        state_folder=state.path("worker", "x").parent,
        slots=slots,
        wait_seconds=5,
        app_network=app_network,
        connect_to=connect_to or {},
    )
    store = KuboStore(description.services.gateway, description.services.gateway)
    choice = enclave or choice_of(description.enclave_kind)
    if choice.kind.value != description.enclave_kind:
        raise ConfigurationError(
            f"the network {name} has {description.enclave_kind} enclaves, and {choice.value} gives {choice.kind.value} evidence"
        )
    runtime, spec = build_runtime(state, choice, settings)
    note_runtime(state, describe_runtime(runtime, choice))
    worker = Worker(
        Platform(
            settings=settings,
            journal=Journal(settings.state_folder / "journal.sqlite"),
            scheduler=SchedulerClient(
                description.services.scheduler, chain_id=description.chain_id, hub=contracts.hub
            ).worker(key),
            sms=SmsClient(description.services.sms, chain_id=description.chain_id, hub=contracts.hub),
            store=store,
            fetcher=ContentFetcher(store, gateway=description.services.gateway, allowed_networks=settings.networks),
            hub=Hub(rpc, contracts.hub),
            sender=TransactionSender(
                rpc, key, TransactionJournal(state.path("journals", f"{rpc.chain_id}-{key.address.lower()}.sqlite"))
            ),
            enclaves=Enclaves(runtime, spec, warm=runtime.quick),
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    try:
        worker.run()
    finally:
        runtime.close()
