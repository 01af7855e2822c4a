"""The typed clients of all contracts, in one place to import from."""

from __future__ import annotations

from cloister.chain.calls import Call, Receipt
from cloister.chain.dataprotector import DataProtectorContract
from cloister.chain.hub import ContributionAndResult, Hub
from cloister.chain.hub_reads import Account, HubReads
from cloister.chain.registries import AppEntry, DatasetEntry, Registry, RegistryReads, WorkerpoolEntry
from cloister.chain.rpc import Read
from cloister.chain.tokens import Rlc

__all__ = [
    "Account",
    "AppEntry",
    "Call",
    "ContributionAndResult",
    "DataProtectorContract",
    "DatasetEntry",
    "Hub",
    "HubReads",
    "Read",
    "Receipt",
    "Registry",
    "RegistryReads",
    "Rlc",
    "WorkerpoolEntry",
]
