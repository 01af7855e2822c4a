"""A scheduler's database, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.services.scheduler.deals import HUB, POOL, key_of

from cloister.services.database import Database, open_database
from cloister.services.scheduler.leasing import Leasing
from cloister.services.scheduler.settings import SchedulerSettings
from cloister.services.scheduler.store import Store

WORKERS = frozenset(key_of(f"worker {n}").address for n in range(10))


@pytest.fixture
def settings() -> SchedulerSettings:
    return SchedulerSettings(chain_id=421614, hub=HUB, workerpools=(POOL,), workers=WORKERS, deal_window=8)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    opened.upgrade("scheduler")
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database, settings: SchedulerSettings) -> Store:
    return Store(database, window=settings.deal_window)


@pytest.fixture
def leasing(database: Database, settings: SchedulerSettings) -> Leasing:
    return Leasing(database, settings)
