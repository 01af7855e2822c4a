"""Puts the collateral service together."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloister.services.collateral.feeds import Feed
from cloister.services.collateral.http import CollateralPart
from cloister.services.collateral.refreshing import Refresher
from cloister.services.collateral.service import CollateralService
from cloister.services.collateral.settings import CollateralSettings
from cloister.services.collateral.store import CollateralStore
from cloister.services.database import Database


def build_collateral_part(
    settings: CollateralSettings,
    *,
    database: Database,
    feeds: Sequence[Feed] = (),
    reference: Callable[[], Mapping[str, Any]] | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
) -> CollateralPart:
    """Build the service over a database; ``clock`` gives Unix seconds, ``jitter`` numbers from 0 to 1.

    ``feeds`` are asked in their order; without any, what is kept comes from bundles alone and nothing leaves this machine.
    ``reference`` gives the network's signed reference values.
    """
    service = CollateralService(settings, store=CollateralStore(database), feeds=feeds, clock=clock, jitter=jitter)
    return CollateralPart(
        database=database,
        service=service,
        refresher=Refresher(settings, service, jitter=jitter),
        reference=reference,
        clock=clock,
    )
