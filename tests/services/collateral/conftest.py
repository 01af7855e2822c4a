"""A collateral service over an empty database, a clock that tests move, and vendors of our own on real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.dcap_authority import DcapAuthority
from tests.support.http import peer  # noqa: F401  (a fixture)
from tests.support.sms_world import Clock
from tests.support.snp_authority import SnpAuthority

from cloister.attestation.anchors import AMD_ARK_MILAN, INTEL_SGX_ROOT
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.services.application import BackgroundServer, build_application
from cloister.services.collateral.feeds import Feed
from cloister.services.collateral.http import CollateralPart
from cloister.services.collateral.part import build_collateral_part
from cloister.services.collateral.service import CollateralService, Outcome
from cloister.services.collateral.settings import CollateralSettings
from cloister.services.database import open_database

NOW = 1_790_000_000
INTEL = DcapAuthority.create(now=NOW)
AMD = SnpAuthority.create("Milan")
TDX, SGX, SNP = EvidenceKind.TDX, EvidenceKind.SGX, EvidenceKind.SNP
TRUST = Collateral(
    (*INTEL.roots(), (SNP, AMD.ark), *((kind, INTEL_SGX_ROOT) for kind in (TDX, SGX)), (SNP, AMD_ARK_MILAN))
)


@dataclass
class World:
    """One service; ``again`` is the same database opened by a new process."""

    url: str | Path
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    feeds: Sequence[Feed] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def part(self) -> CollateralPart:
        """The service, as composed; not started."""
        settings = CollateralSettings(**{"trust": TRUST, "tick_seconds": 0.05, **self.settings})
        return build_collateral_part(
            settings,
            database=open_database(self.url),
            feeds=self.feeds,
            reference=lambda: {"version": 1},
            clock=self.clock,
            jitter=lambda: 0.5,
        )

    def again(self) -> CollateralService:
        """The service of another process on the same database."""
        part = self.part()
        part.prepare()
        return part.service

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve over HTTP; yields the URL."""
        with BackgroundServer(build_application([self.part()])) as server:
            yield server.url


@pytest.fixture
def world(database_url: str) -> World:
    """On SQLite and on PostgreSQL."""
    return World(database_url)


@pytest.fixture
def lone_world(tmp_path: Path) -> World:
    """On SQLite alone, for what does not depend on the database."""
    return World(tmp_path / "collateral.db")


Results = Callable[[Sequence[Outcome]], set[tuple[str, str | None]]]


def results(outcomes: Sequence[Outcome]) -> set[tuple[str, str | None]]:
    """What became of the pieces, each kind of result once."""
    return {(each.result, each.code) for each in outcomes}
