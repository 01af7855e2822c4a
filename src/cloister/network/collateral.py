"""A network's collateral service: under which roots it keeps things, where its sources are named, where its database is."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.attestation.anchors import AMD_ARK_GENOA, AMD_ARK_MILAN, AMD_ARK_TURIN, INTEL_SGX_ROOT
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.network.state import NetworkState
from cloister.sdk.home import load_description
from cloister.sdk.receipts import ReferenceValues, load_reference_values
from cloister.services.collateral.service import CollateralService
from cloister.services.collateral.settings import CollateralSettings
from cloister.services.collateral.sources import load_feeds
from cloister.services.collateral.store import CollateralStore
from cloister.services.database import open_database

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.services.collateral.http import CollateralPart

SOURCES = "collateral.json"
"""File in a network's folder that names vendors' services, mirrors of them, or a bundle. Without it nobody is asked."""


def collateral_trust(values: ReferenceValues) -> Collateral:
    """Under which roots a network keeps collateral: the vendors' own, and those that the network names itself. What evidence
    may rest on is another question, which the SMS's own roots answer.
    """
    vendors = [(kind, INTEL_SGX_ROOT) for kind in (EvidenceKind.TDX, EvidenceKind.SGX)]
    vendors += [(EvidenceKind.SNP, root) for root in (AMD_ARK_MILAN, AMD_ARK_GENOA, AMD_ARK_TURIN)]
    return Collateral(tuple(dict.fromkeys((*vendors, *values.collateral.roots))))


def build_collateral(state: NetworkState, values: ReferenceValues, reference: Mapping[str, Any]) -> CollateralPart:
    """The service of a network, to be served; ``reference`` are its signed reference values."""
    from cloister.services.collateral.part import build_collateral_part  # the framework is a second's import

    feeds, bundle = load_feeds(state.path(SOURCES))
    return build_collateral_part(
        CollateralSettings(trust=collateral_trust(values), bundle=bundle),
        database=open_database(_database(state)),
        feeds=feeds,
        reference=lambda: reference,
    )


def load_collateral_service(name: str) -> CollateralService:
    """The rules and the database of a network's service on this machine, without serving; the network may run meanwhile.

    Raises:
        NotFound: there is no network of that name here.
    """
    load_description(name)
    state = NetworkState(name)
    database = open_database(_database(state))
    database.upgrade("collateral")
    feeds, bundle = load_feeds(state.path(SOURCES))
    return CollateralService(
        CollateralSettings(trust=collateral_trust(load_reference_values(name)), bundle=bundle),
        store=CollateralStore(database),
        feeds=feeds,
        clock=time.time,
        jitter=random.random,
    )


def _database(state: NetworkState) -> Path:
    return state.path("services", "collateral.sqlite")
