"""What a network is, as everybody who joins it must know it (``GET /-/network``). Public: holds no secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

from cloister.errors import DecodeError, InputError, quoted
from cloister.protocol.codec import Address, check_keys, check_uint, parse_address, parse_text, parse_uint

VERSION: Final = 1
URL_CAP: Final = 2048
NAME_CAP: Final = 64
_URL: Final = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class ServiceUrls:
    """Where each service answers. On one origin they may all be the same."""

    market: str
    sms: str
    scheduler: str
    indexer: str
    gateway: str
    compass: str
    result_proxy: str

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_url(item.name, getattr(self, item.name))

    @classmethod
    def at(cls, origin: str) -> ServiceUrls:
        """All services on one origin."""
        return cls(**{item.name: origin for item in fields(cls)})


@dataclass(frozen=True, slots=True)
class ContractAddresses:
    """Where the contracts of the network stand."""

    hub: Address
    rlc: Address
    app_registry: Address
    dataset_registry: Address
    workerpool_registry: Address
    dataprotector: Address


@dataclass(frozen=True, slots=True)
class NetworkDescription:
    """A network: its chain, services, contracts, default workerpool and what its enclaves are.

    ``enclave_kind`` is the kind of evidence (``tdx``, ``snp``, ``tpm``, ``simulated``). ``teebroker`` is the SMS's
    attestation address on the hub, zero when the hub has none. ``start_block`` is where indexing begins.
    """

    name: str
    chain_id: int
    rpc_url: str
    origin: str
    services: ServiceUrls
    contracts: ContractAddresses
    workerpool: Address
    enclave_kind: str
    teebroker: Address
    start_block: int = 0

    def __post_init__(self) -> None:
        for name in (self.name, self.enclave_kind):
            if not _NAME.fullmatch(name):
                raise InputError(f"{quoted(name)} is not a name of a-z 0-9 - up to {NAME_CAP} characters")
        check_uint("chain_id", self.chain_id)
        check_uint("start_block", self.start_block)
        _check_url("rpc_url", self.rpc_url)
        _check_url("origin", self.origin)

    @property
    def simulated(self) -> bool:
        """Whether nothing on this network is confidential against its hosts."""
        return self.enclave_kind == "simulated"

    def to_json(self) -> dict[str, object]:
        """Return the description as JSON members."""
        return {
            "version": VERSION,
            "name": self.name,
            "chain_id": self.chain_id,
            "rpc_url": self.rpc_url,
            "origin": self.origin,
            "services": {item.name: getattr(self.services, item.name) for item in fields(self.services)},
            "contracts": {item.name: getattr(self.contracts, item.name) for item in fields(self.contracts)},
            "workerpool": self.workerpool,
            "enclave_kind": self.enclave_kind,
            "teebroker": self.teebroker,
            "start_block": self.start_block,
        }


def _check_url(name: str, value: str) -> None:
    if len(value) > URL_CAP or not _URL.fullmatch(value):
        raise InputError(f"{name}: {quoted(value)} is not an http(s) url without user, query or fragment")


def parse_network(value: object) -> NetworkDescription:
    """Read a network description from parsed JSON.

    Raises:
        DecodeError, TooLarge, InputError: a missing, unknown or unreadable member.
    """
    keys = ("version", "name", "chain_id", "rpc_url", "origin", "services", "contracts", "workerpool", "enclave_kind")
    given = check_keys("network", value, required=(*keys, "teebroker", "start_block"))
    if given["version"] != VERSION or isinstance(given["version"], bool):
        raise DecodeError(f"network: version {quoted(given['version'])} is not {VERSION}")
    service_names = [item.name for item in fields(ServiceUrls)]
    services = check_keys("services", given["services"], required=service_names)
    contract_names = [item.name for item in fields(ContractAddresses)]
    contracts = check_keys("contracts", given["contracts"], required=contract_names)
    return NetworkDescription(
        name=parse_text("name", given["name"], cap=NAME_CAP),
        chain_id=parse_uint("chain_id", given["chain_id"]),
        rpc_url=parse_text("rpc_url", given["rpc_url"], cap=URL_CAP),
        origin=parse_text("origin", given["origin"], cap=URL_CAP),
        services=ServiceUrls(**{name: parse_text(name, services[name], cap=URL_CAP) for name in service_names}),
        contracts=ContractAddresses(**{name: parse_address(name, contracts[name]) for name in contract_names}),
        workerpool=parse_address("workerpool", given["workerpool"]),
        enclave_kind=parse_text("enclave_kind", given["enclave_kind"], cap=NAME_CAP),
        teebroker=parse_address("teebroker", given["teebroker"]),
        start_block=parse_uint("start_block", given["start_block"]),
    )
