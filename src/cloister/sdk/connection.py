"""One network as one wallet sees it: its description and the clients of its parts, each made when first used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import ConfigurationError, InputError
from cloister.protocol.codec import Address
from cloister.protocol.eip712 import Domain, hub_domain
from cloister.protocol.networks import NetworkDescription
from cloister.protocol.signatures import PrivateKey
from cloister.sdk.home import LOCAL, load_description, wallet_folder
from cloister.sdk.wallet import Wallet

if TYPE_CHECKING:
    from cloister.chain.contracts import DataProtectorContract, Hub, Registry, Rlc
    from cloister.chain.rpc import JsonRpc
    from cloister.chain.sender import TransactionSender
    from cloister.clients.indexer import IndexerClient
    from cloister.clients.market import MarketClient
    from cloister.clients.scheduler import SchedulerClient
    from cloister.clients.sms import SmsClient
    from cloister.storage.kubo import KuboStore


@dataclass
class Connection:
    """A network and, for everything that signs, a wallet. Clients are imported late: a command pays only for what it uses."""

    network: NetworkDescription
    wallet: Wallet | None = None
    source: str = LOCAL
    """How the network was found: its name on this machine, or its URL."""

    @classmethod
    def open(cls, network: str = LOCAL, *, wallet: Wallet | str | Path | None = None) -> Connection:
        """Find a network by name or URL; ``wallet`` is a Wallet, a key file's path or a demo account's role."""
        if isinstance(wallet, (str, Path)):
            wallet = Wallet.named(str(wallet), network if "://" not in network else LOCAL)
        return cls(load_description(network), wallet, network)

    @property
    def signer(self) -> PrivateKey:
        """The wallet's key.

        Raises:
            InputError: this connection only reads.
        """
        if self.wallet is None:
            raise InputError("this needs a wallet", hint="connect(wallet=…), or --as ROLE_OR_KEY_FILE")
        return self.wallet.key

    @property
    def address(self) -> Address:
        """The wallet's address."""
        return self.signer.address

    @property
    def domain(self) -> Domain:
        """EIP-712 domain of the hub."""
        return hub_domain(self.network.chain_id, self.network.contracts.hub)

    @cached_property
    def rpc(self) -> JsonRpc:
        """The chain's node, once it is proven to be the chain that the description names.

        Raises:
            ConfigurationError: the node serves another chain.
        """
        from cloister.chain.rpc import JsonRpc

        rpc = JsonRpc(self.network.rpc_url)
        chain_id = int(str(rpc.call("eth_chainId")), 16)
        if chain_id != self.network.chain_id:
            raise ConfigurationError(
                f"{self.network.rpc_url} serves chain {chain_id}, the network is on chain {self.network.chain_id}",
                hint="point the network's description at the right node",
            )
        return rpc

    @cached_property
    def hub(self) -> Hub:
        """The PoCo hub."""
        from cloister.chain.contracts import Hub

        return Hub(self.rpc, self.network.contracts.hub)

    @cached_property
    def rlc(self) -> Rlc:
        """The RLC token."""
        from cloister.chain.contracts import Rlc

        return Rlc(self.rpc, self.network.contracts.rlc)

    @cached_property
    def apps(self) -> Registry:
        """AppRegistry."""
        from cloister.chain.contracts import Registry

        return Registry(self.rpc, self.network.contracts.app_registry)

    @cached_property
    def datasets(self) -> Registry:
        """DatasetRegistry."""
        from cloister.chain.contracts import Registry

        return Registry(self.rpc, self.network.contracts.dataset_registry)

    @cached_property
    def dataprotector(self) -> DataProtectorContract:
        """The DataProtector contract."""
        from cloister.chain.contracts import DataProtectorContract

        return DataProtectorContract(self.rpc, self.network.contracts.dataprotector)

    @cached_property
    def sender(self) -> TransactionSender:
        """Sends this wallet's transactions; its journal is in the wallet's folder, one file per chain."""
        from cloister.chain.journal import Journal
        from cloister.chain.sender import TransactionSender

        folder = wallet_folder(self.address)
        return TransactionSender(
            self.rpc, self.signer, Journal(folder / f"transactions-{self.network.contracts.hub.lower()}.sqlite")
        )

    @cached_property
    def market(self) -> MarketClient:
        """The order books."""
        from cloister.clients.market import MarketClient

        return MarketClient(self.network.services.market, self.network.chain_id)

    @cached_property
    def sms(self) -> SmsClient:
        """The secret management service."""
        from cloister.clients.sms import SmsClient

        return SmsClient(self.network.services.sms, chain_id=self.network.chain_id, hub=self.network.contracts.hub)

    @cached_property
    def scheduler(self) -> SchedulerClient:
        """The scheduler's public face: task status and logs."""
        from cloister.clients.scheduler import SchedulerClient

        return SchedulerClient(
            self.network.services.scheduler, chain_id=self.network.chain_id, hub=self.network.contracts.hub
        )

    @cached_property
    def indexer(self) -> IndexerClient:
        """What exists on chain, searchable."""
        from cloister.clients.indexer import IndexerClient

        return IndexerClient(self.network.services.indexer)

    @cached_property
    def store(self) -> KuboStore:
        """Content-addressed storage."""
        from cloister.storage.kubo import KuboStore

        return KuboStore(self.network.services.gateway, self.network.services.gateway)
