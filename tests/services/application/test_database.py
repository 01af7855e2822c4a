"""The database scopes, on every database that is at hand."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text, update

from cloister.errors import ConfigurationError, Conflict, UnavailableError
from cloister.services.database import Database, open_database, upgrade

metadata = MetaData()
counters = Table(
    "counters", metadata, Column("name", String(20), primary_key=True), Column("value", Integer, nullable=False)
)
MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision = "{revision}"
down_revision = {down}
def upgrade() -> None:
    {body}
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url)
    metadata.create_all(opened.engine)
    with opened.session_scope() as session:
        session.execute(insert(counters).values(name="a", value=0))
    yield opened
    opened.close()


def read(database: Database) -> dict[str, int]:
    with database.read_scope() as session:
        return {row.name: row.value for row in session.execute(select(counters))}


def test_a_scope_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ValueError, match="stop"), database.session_scope() as session:  # noqa: PT012
        session.execute(insert(counters).values(name="b", value=1))
        raise ValueError("stop")
    assert read(database) == {"a": 0}


def test_a_broken_constraint_is_a_conflict_that_repeats_no_value(database: Database) -> None:
    with pytest.raises(Conflict) as caught, database.session_scope() as session:
        session.execute(insert(counters).values(name="a", value=123456789))
    assert caught.value.code == "constraint"
    assert "123456789" not in str(caught.value)


def test_a_read_scope_keeps_nothing_and_sees_one_moment(database: Database) -> None:
    with database.read_scope() as session:
        before = session.execute(select(counters.c.value)).scalar_one()
        with database.session_scope() as writing:
            writing.execute(update(counters).values(value=5))
        assert session.execute(select(counters.c.value)).scalar_one() == before
    assert read(database) == {"a": 5}


def test_racing_compare_and_set_has_one_winner_each_round(database: Database) -> None:
    wins: list[int] = []
    start = threading.Barrier(8)

    def race(me: int) -> None:
        start.wait()
        for value in range(10):
            with database.session_scope() as session:
                done = session.execute(
                    update(counters).where(counters.c.name == "a", counters.c.value == value).values(value=value + 1)
                )
                if done.rowcount == 1:  # type: ignore[attr-defined]
                    wins.append(me)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 10
    assert read(database) == {"a": 10}


def test_nested_write_scopes_are_refused_at_once(database: Database) -> None:
    with database.session_scope(), pytest.raises(RuntimeError, match="write scope inside"):
        database.session_scope().__enter__()


def folder_of(tmp_path: Path, **revisions: tuple[str | None, str]) -> Path:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    for revision, (down, body) in revisions.items():
        (versions / f"{revision}.py").write_text(MIGRATION.format(revision=revision, down=repr(down), body=body))
    return versions.parent


def test_upgrade_runs_each_step_once_and_services_do_not_meet(database: Database, tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", a1=(None, "op.create_table('one', sa.Column('x', sa.Integer))"))
    two = folder_of(tmp_path / "two", b1=(None, "op.create_table('two', sa.Column('x', sa.Integer))"))
    database.upgrade("one", folder=one)
    database.upgrade("two", folder=two)
    database.upgrade("one", folder=one)
    folder_of(tmp_path / "one", a2=("a1", "op.add_column('one', sa.Column('y', sa.Integer))"))
    database.upgrade("one", folder=one)
    with database.read_scope() as session:
        assert session.execute(text("SELECT y FROM one")).all() == []
        assert session.execute(text("SELECT version_num FROM one_revision")).all() == [("a2",)]
        assert session.execute(text("SELECT version_num FROM two_revision")).all() == [("b1",)]


def test_a_failing_migration_leaves_nothing(database: Database, tmp_path: Path) -> None:
    broken = folder_of(
        tmp_path, c1=(None, "op.create_table('three', sa.Column('x', sa.Integer)); raise ValueError('stop')")
    )
    with pytest.raises(ValueError, match="stop"):
        database.upgrade("three", folder=broken)
    mended = folder_of(tmp_path, c1=(None, "op.create_table('three', sa.Column('x', sa.Integer))"))
    database.upgrade("three", folder=mended)
    with database.read_scope() as session:
        assert session.execute(text("SELECT version_num FROM three_revision")).all() == [("c1",)]


def test_tables_of_a_newer_release_are_refused(database: Database, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, d1=(None, "pass"), d2=("d1", "pass"))
    database.upgrade("four", folder=folder)
    (folder / "versions" / "d2.py").unlink()
    with pytest.raises(ConfigurationError, match="revision d2, which this release does not know"):
        database.upgrade("four", folder=folder)


def test_racing_upgrades_do_the_work_once(database_url: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, e1=(None, "op.create_table('five', sa.Column('x', sa.Integer))"))
    opened = [open_database(database_url) for _ in range(4)]
    failures: list[BaseException] = []

    def work(one: Database) -> None:
        try:
            one.upgrade("five", folder=folder)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_unknown_services_and_urls_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no service is named nothing"):
        upgrade(tmp_path / "x.db", "nothing")
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///x.db?mode=memory"):
        with pytest.raises(ConfigurationError, match="plain file"):
            open_database(url)
    with pytest.raises(ConfigurationError, match="not supported"):
        open_database("mysql://user:hunter2@host/name")
    with pytest.raises(ConfigurationError) as caught:
        open_database("hunter2 is not a url")
    assert "hunter2" not in str(caught.value)


def _hold(path: Path, held: multiprocessing.synchronize.Event, release: multiprocessing.synchronize.Event) -> None:
    with open_database(path).session_scope() as session:
        session.execute(update(counters).values(value=9))
        held.set()
        release.wait(30)


def test_sqlite_is_durable_and_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    database = open_database(path)
    metadata.create_all(database.engine)
    with database.session_scope() as session:
        session.execute(insert(counters).values(name="a", value=0))
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    spawning = multiprocessing.get_context("spawn")
    held, release = spawning.Event(), spawning.Event()
    other = spawning.Process(target=_hold, args=(path, held, release))
    other.start()
    assert held.wait(30)
    other.kill()
    other.join()
    assert read(database) == {"a": 0}
    with database.session_scope() as session:
        session.execute(update(counters).values(value=1))
    assert read(database) == {"a": 1}


def test_a_busy_sqlite_is_unavailable_and_not_an_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.services.database.BUSY_SECONDS", 0.2)
    first, second = open_database(tmp_path / "one.db"), open_database(tmp_path / "one.db")
    metadata.create_all(first.engine)
    began = time.monotonic()
    with first.session_scope(), pytest.raises(UnavailableError), second.session_scope():
        pytest.fail("two writers at once")
    assert time.monotonic() - began < 10
