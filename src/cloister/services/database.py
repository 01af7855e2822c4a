"""A service's database: SQLite in a file by default, PostgreSQL by URL, the same rules on both.

SQLite runs in WAL mode with ``synchronous=FULL``: a committed transaction survives power loss. Write scopes begin with
``BEGIN IMMEDIATE`` and therefore run one after the other; on PostgreSQL they run at READ COMMITTED side by side.
Code that must hold on both decides races with unique constraints, compare-and-set updates (``UPDATE … WHERE state =
old``, then look at ``rowcount``) or ``with_for_update()``, never by reading first and writing later.

Several services may share one database: each migrates with a version table of its own.
"""

from __future__ import annotations

import importlib.resources
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from cloister.errors import ConfigurationError, Conflict, UnavailableError

BUSY_SECONDS = 10
"""How long a writer waits for another process's write before it gives up with ``UnavailableError``."""

_READ_ONLY = "cloister_read"


class Database:
    """Engine and transaction scopes. Safe to share between threads; one per process and URL is enough.

    Scopes do not nest: a write scope inside another of the same thread would wait for itself, so it is refused.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        # SQLite has one writer at a time. Waiting here is fair and immediate; SQLite's own waiting polls.
        self._writer = threading.Lock() if self.dialect == "sqlite" else None
        self._inside = threading.local()

    @contextmanager
    def session_scope(self) -> Iterator[Session]:
        """One write transaction: committed (and on disk) when the block ends, rolled back when it raises.

        Objects stay readable after the commit (``expire_on_commit`` is off).

        Raises:
            Conflict: a unique, foreign-key or check constraint refused the transaction (``code`` is ``constraint``).
            UnavailableError: the database is locked, full, gone or out of connections.
        """
        if getattr(self._inside, "writing", False):
            raise RuntimeError("a write scope inside a write scope: pass the session on instead")
        self._inside.writing = True
        try:
            with (
                self._exclusive(),
                _translated(),
                Session(self.engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                session.connection()  # begins now, so that a busy database is met before the caller's first step
                yield session
        finally:
            self._inside.writing = False

    @contextmanager
    def read_scope(self) -> Iterator[Session]:
        """One read transaction: a consistent view that writers do not disturb. Nothing written in it is kept.

        Raises:
            UnavailableError: the database is gone or out of connections.
        """
        options: dict[str, Any] = {_READ_ONLY: True}
        if self.dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _translated(), self.engine.connect().execution_options(**options) as connection:
            with Session(connection, expire_on_commit=False) as session:
                yield session
            connection.rollback()

    def upgrade(self, service: str, *, folder: Path | None = None) -> None:
        """Bring one service's tables to the newest migration. Idempotent; of several replicas, one does the work.

        ``folder`` holds ``versions/``; by default it is ``cloister/services/<service>/migrations``. The whole
        upgrade is one transaction on both databases.

        Raises:
            ConfigurationError: no such folder, or the database was written by a newer release.
            UnavailableError: the database is locked or gone.
        """
        folder = folder or _migrations_of(service)
        if not (folder / "versions").is_dir():
            raise ConfigurationError(f"service {service} has no migrations in {folder.name}/versions")
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        script = ScriptDirectory.from_config(config)
        with self._exclusive(), _translated(service), self.engine.begin() as connection:
            if self.dialect == "postgresql":
                key = zlib.crc32(service.encode())
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:space, :key)"), {"space": 0x436C, "key": key >> 1}
                )
            _run_migrations(config, script, connection, service)

    def check_ready(self) -> None:
        """Return when the database answers.

        Raises:
            UnavailableError: it does not.
        """
        with self.read_scope() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self._writer is None:
            yield
            return
        if not self._writer.acquire(timeout=BUSY_SECONDS):
            raise UnavailableError("the database is busy", hint="try again in a moment")
        try:
            yield
        finally:
            self._writer.release()


def open_database(url: str | Path, *, pool_size: int = 20) -> Database:
    """Open a database by URL (``sqlite:////path/file.db``, ``postgresql+psycopg://user@host/name``) or by a file's
    path.

    Nothing is created but an empty file; call :meth:`Database.upgrade` for the tables. A URL may hold a password: it
    is never logged nor put into an error.

    Raises:
        ConfigurationError: no usable URL, an in-memory SQLite database, or a driver that is not installed.
    """
    try:
        address = make_url(f"sqlite:///{Path(url).absolute()}" if isinstance(url, Path) else url)
    except ArgumentError:
        raise ConfigurationError(
            "the database url does not parse", hint="use sqlite:////absolute/path.db or postgresql://user@host/name"
        ) from None
    backend = address.get_backend_name()
    if backend == "sqlite":
        return Database(_open_sqlite(address, pool_size))
    if backend == "postgresql":
        if address.drivername == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        return Database(_open_postgresql(address, pool_size))
    raise ConfigurationError(f"database {backend} is not supported", hint="use sqlite or postgresql")


def upgrade(url: str | Path, service: str) -> None:
    """Bring one service's tables in the database at ``url`` to the newest migration, then close it again."""
    database = open_database(url)
    try:
        database.upgrade(service)
    finally:
        database.close()


def _open_sqlite(address: sqlalchemy.URL, pool_size: int) -> Engine:
    name = address.database
    if not name or name == ":memory:" or address.query:
        raise ConfigurationError(
            "a service's sqlite database is a plain file",
            hint="use sqlite:////absolute/path.db: what is acknowledged must last",
        )
    engine = sqlalchemy.create_engine(
        address,
        pool_size=pool_size,
        max_overflow=pool_size,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late and too weak; ours is below
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")

    return engine


def _open_postgresql(address: sqlalchemy.URL, pool_size: int) -> Engine:
    try:
        return sqlalchemy.create_engine(
            address,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": BUSY_SECONDS},
        )
    except ImportError as error:
        raise ConfigurationError(
            "the postgresql driver is not installed", hint="pip install 'cloister[postgresql]'"
        ) from error


@contextmanager
def _translated(service: str | None = None) -> Iterator[None]:
    """Translate the driver's errors. Their texts hold statements and values, so none of it is repeated."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("the database refused the change: it breaks a constraint", code="constraint") from error
    except (OperationalError, PoolTimeout) as error:
        raise UnavailableError("the database does not answer or is busy", hint="try again in a moment") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise UnavailableError("the database connection broke", hint="try again in a moment") from error
        if getattr(error.orig, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            whose = "" if service is None else f" of {service}"
            raise ConfigurationError(f"the database file{whose} is damaged", hint="restore it from a copy") from error
        raise


def _migrations_of(service: str) -> Path:
    try:
        root = importlib.resources.files(f"cloister.services.{service}")
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"no service is named {service}") from error
    return Path(str(root)) / "migrations"


def _run_migrations(config: Config, script: ScriptDirectory, connection: Connection, service: str) -> None:
    def steps(revision: Any, _context: object) -> Any:
        known = {entry.revision for entry in script.walk_revisions()}
        for current in (revision,) if isinstance(revision, str) else revision:
            if current not in known:
                raise ConfigurationError(
                    f"the tables of {service} are at revision {current}, which this release does not know",
                    hint="run the release that wrote them, or a newer one",
                )
        return script._upgrade_revs("head", revision)  # alembic's documented way to migrate without an env.py

    with EnvironmentContext(config, script, fn=steps, destination_rev="head") as environment:
        environment.configure(
            connection=connection,
            version_table=f"{service}_revision",
            transactional_ddl=True,
            transaction_per_migration=False,
            render_as_batch=True,
        )
        environment.run_migrations()
