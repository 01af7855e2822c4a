"""What the market remembers, in SQL.

Publications come many at once: they go through one writer that puts whatever waits into one transaction, so that one
flush to disk serves them all. A caller gets its answer after that flush.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, func, insert, select, update

from cloister.chain.events import Cursor, parse_cursor
from cloister.errors import UnavailableError
from cloister.protocol.codec import Address, Bytes32, canonical_json, parse_json
from cloister.protocol.orders import OrderKind
from cloister.services.database import Database
from cloister.services.market.filters import Page
from cloister.services.market.records import BIGINT_MAX
from cloister.services.market.tables import CATEGORIES, CHALLENGES, CHECKPOINTS, CONSUMPTIONS, DEALS, KEYS, ORDERS

T = TypeVar("T")

MAX_BATCH = 64
WRITE_TIMEOUT = 30.0
_MAX_GENERATIONS = 100_000
_CHECKPOINT = "watcher"


# Built once: putting a statement together costs more than running it.
_USE_CHALLENGE = (
    update(CHALLENGES)
    .where(CHALLENGES.c.address == bindparam("who"), CHALLENGES.c.generation == bindparam("was"))
    .values(generation=bindparam("now"))
)
_INSERT_ORDER = insert(ORDERS)
_LOOK = select(
    select(ORDERS.c.status)
    .where(ORDERS.c.order_hash == bindparam("order_hash"), ORDERS.c.kind == bindparam("kind"))
    .scalar_subquery(),
    select(func.count())
    .select_from(ORDERS)
    .where(ORDERS.c.kind == bindparam("kind"), ORDERS.c.signer == bindparam("signer"), ORDERS.c.status == "open")
    .scalar_subquery(),
)

_Job = tuple[Callable[[Connection], Any], Future[Any], Callable[[Any], None] | None]

log = logging.getLogger("cloister.market")


class GroupWriter:
    """Runs write jobs of many threads in shared transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the writing thread."""
        self._thread = threading.Thread(target=self._run, name="market writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, then end. Safe to call twice, and without a start."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(WRITE_TIMEOUT)
            self._thread = None

    def write(self, job: Callable[[Connection], T], *, afterwards: Callable[[T], None] | None = None) -> T:
        """Run ``job`` and return its result once it is on disk. What it raises undoes its own changes only.

        A job may run twice, the first time in vain: it must have no effect but through its session. ``afterwards``
        gets the result when it is on disk, in the order of the writes; it must not wait.

        Raises: whatever the job raises; UnavailableError when the writer is stopped or too slow.
        """
        if self._thread is None:
            raise UnavailableError("the market is stopping")
        future: Future[T] = Future()
        self._jobs.put((job, future, afterwards))
        try:
            return future.result(WRITE_TIMEOUT)
        except TimeoutError as error:
            raise UnavailableError("the market's database is too slow") from error

    def _run(self) -> None:
        while True:
            first = self._jobs.get()
            if first is None:
                return
            batch, ending = [first], False
            while len(batch) < MAX_BATCH and not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    ending = True
                    break
                batch.append(job)
            self._commit(batch)
            if ending:
                return

    def _commit(self, batch: Sequence[_Job]) -> None:
        """Run a batch in one transaction. When a job of several raises, each runs again in a transaction of its own."""
        try:
            with self._database.session_scope() as session:
                connection = session.connection()
                results = [job(connection) for job, _, _ in batch]
        except BaseException as error:  # noqa: BLE001 - it belongs to the job's caller
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for each in batch:
                self._commit([each])
            return
        for (_, future, afterwards), result in zip(batch, results, strict=True):
            if afterwards is not None:
                try:
                    afterwards(result)
                except Exception:
                    log.exception("what was written could not be told")
            future.set_result(result)


class MarketStore:
    """Reads and writes of the market's tables. Methods that take a session run inside a write job."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writer = GroupWriter(database)
        self._is_alone = database.dialect == "sqlite"
        self._generations: dict[Address, int] = {}

    # --- login ---

    def challenge_key(self) -> bytes:
        """The key that challenges are derived from; made once per database."""
        with self._database.session_scope() as session:
            found = session.execute(select(KEYS.c.value).where(KEYS.c.name == "challenge")).scalar()
            if found is None:
                found = secrets.token_hex(32)
                session.execute(insert(KEYS).values(name="challenge", value=found))
        return bytes.fromhex(found)

    def generation(self, address: Address) -> int:
        """How many challenges an address used up.

        With SQLite there is one market process, so what was read stays true until a login of this process changes it.
        """
        known = self._generations.get(address) if self._is_alone else None
        if known is not None:
            return known
        with self._database.read_scope() as session:
            query = select(CHALLENGES.c.generation).where(CHALLENGES.c.address == str(address))
            found = session.execute(query).scalar() or 0
        if self._is_alone and len(self._generations) < _MAX_GENERATIONS:
            self._generations[address] = found
        return found

    def knows_generation(self, address: Address) -> bool:
        """Whether ``generation`` answers without the database."""
        return self._is_alone and address in self._generations

    def remember_generation(self, address: Address, generation: int) -> None:
        """A login of this process used up the challenge before ``generation``, and that is on disk."""
        if self._is_alone and len(self._generations) < _MAX_GENERATIONS:
            # The later of two logins may be told first.
            self._generations[address] = max(generation, self._generations.get(address, 0))

    def forget_generation(self, address: Address) -> None:
        """A login used up a challenge of this address, or failed to."""
        self._generations.pop(address, None)
        if len(self._generations) >= _MAX_GENERATIONS:
            self._generations.clear()

    @staticmethod
    def use_challenge(connection: Connection, address: Address, generation: int) -> bool:
        """Use up a challenge: True for exactly one caller per generation."""
        changed = connection.execute(_USE_CHALLENGE, {"who": str(address), "was": generation, "now": generation + 1})
        if changed.rowcount == 1:
            return True
        exists = connection.execute(select(CHALLENGES.c.address).where(CHALLENGES.c.address == str(address))).first()
        if generation != 0 or exists is not None:
            return False
        connection.execute(insert(CHALLENGES).values(address=str(address), generation=1))
        return True

    # --- orders ---

    def order(self, kind: OrderKind, order_hash: Bytes32) -> Row[Any] | None:
        """One order of a kind, in any status."""
        with self._database.read_scope() as session:
            return find_order(session.connection(), kind, order_hash)

    def orders(
        self, conditions: Sequence[ColumnElement[bool]], kind: OrderKind, page: Page
    ) -> tuple[list[Row[Any]], int]:
        """One page of an orderbook and how many there are in all."""
        price = ORDERS.c.price.desc() if kind is OrderKind.REQUEST else ORDERS.c.price
        query = select(ORDERS).where(*conditions).order_by(price, ORDERS.c.published_at, ORDERS.c.order_hash)
        with self._database.read_scope() as session:
            count = session.execute(select(func.count()).select_from(ORDERS).where(*conditions)).scalar_one()
            rows = session.execute(query.offset(page.skip).limit(page.size)).all() if count > page.skip else []
            return list(rows), count

    def counts(self) -> dict[str, int]:
        """How many orders of each kind are open."""
        query = select(ORDERS.c.kind, func.count()).where(ORDERS.c.status == "open").group_by(ORDERS.c.kind)
        with self._database.read_scope() as session:
            return {row[0]: row[1] for row in session.execute(query)}

    # --- deals and categories ---

    def deal(self, deal_id: Bytes32) -> str | None:
        """The record of a deal."""
        with self._database.read_scope() as session:
            return session.execute(select(DEALS.c.body).where(DEALS.c.deal_id == str(deal_id))).scalar()

    def deals(self, conditions: Sequence[ColumnElement[bool]], page: Page) -> tuple[list[str], int]:
        """One page of deals, newest first."""
        query = select(DEALS.c.body).where(*conditions).order_by(DEALS.c.block.desc(), DEALS.c.deal_id)
        with self._database.read_scope() as session:
            count = session.execute(select(func.count()).select_from(DEALS).where(*conditions)).scalar_one()
            return list(session.execute(query.offset(page.skip).limit(page.size)).scalars()), count

    def prices(self, category: int, limit: int) -> list[tuple[int, int, int]]:
        """Block time, workerpool price and volume of the newest deals of a category, oldest first."""
        columns = (DEALS.c.block_timestamp, DEALS.c.workerpool_price, DEALS.c.volume)
        query = select(*columns).where(DEALS.c.category == category).order_by(DEALS.c.block.desc(), DEALS.c.deal_id)
        with self._database.read_scope() as session:
            return [(row[0], row[1], row[2]) for row in session.execute(query.limit(limit))][::-1]

    def category(self, catid: int) -> str | None:
        """The record of a category."""
        with self._database.read_scope() as session:
            return session.execute(select(CATEGORIES.c.body).where(CATEGORIES.c.catid == catid)).scalar()

    def categories(self, conditions: Sequence[ColumnElement[bool]], page: Page) -> tuple[list[str], int]:
        """One page of categories, shortest time first."""
        query = select(CATEGORIES.c.body).where(*conditions).order_by(CATEGORIES.c.clock, CATEGORIES.c.catid)
        with self._database.read_scope() as session:
            count = session.execute(select(func.count()).select_from(CATEGORIES).where(*conditions)).scalar_one()
            return list(session.execute(query.offset(page.skip).limit(page.size)).scalars()), count

    # --- the watcher ---

    def cursor(self) -> Cursor | None:
        """Where the watcher stopped reading."""
        with self._database.read_scope() as session:
            found = session.execute(select(CHECKPOINTS.c.cursor).where(CHECKPOINTS.c.name == _CHECKPOINT)).scalar()
        return None if found is None else parse_cursor(parse_json(found))

    def scalars(self, query: Select[Any]) -> list[str]:
        """The first column of a query's rows."""
        with self._database.read_scope() as session:
            return list(session.execute(query).scalars())


def find_order(connection: Connection, kind: OrderKind, order_hash: Bytes32) -> Row[Any] | None:
    """One order of a kind, in any status."""
    query = select(ORDERS).where(ORDERS.c.order_hash == str(order_hash), ORDERS.c.kind == kind.value)
    return connection.execute(query).first()


def look_up(connection: Connection, kind: OrderKind, order_hash: Bytes32, signer: str) -> tuple[str | None, int]:
    """The status of an order, if it is there, and how many orders of its kind the signer has open."""
    given = {"kind": kind.value, "order_hash": str(order_hash), "signer": signer}
    status, count = connection.execute(_LOOK, given).one()
    return status, count


def insert_order(connection: Connection, row: dict[str, Any], *, replaces: bool) -> None:
    """Write an order's row, in the place of one of the same hash when ``replaces``."""
    if replaces:
        connection.execute(delete(ORDERS).where(ORDERS.c.order_hash == row["order_hash"]))
    connection.execute(_INSERT_ORDER, row)


def save_cursor(connection: Connection, cursor: Cursor) -> None:
    """Remember that everything before this cursor is taken in."""
    text = canonical_json(cursor.to_json()).decode("utf-8")
    changed = connection.execute(update(CHECKPOINTS).where(CHECKPOINTS.c.name == _CHECKPOINT).values(cursor=text))
    if changed.rowcount == 0:
        connection.execute(insert(CHECKPOINTS).values(name=_CHECKPOINT, cursor=text))


def add_consumption(
    connection: Connection, block: int, log_index: int, order_hash: Bytes32, volume: int | None
) -> None:
    """Note that a match used ``volume`` of an order, or (None) that it was closed. Again is no change."""
    key = {"block": block, "log_index": log_index, "order_hash": str(order_hash)}
    known = select(CONSUMPTIONS.c.block).where(*(CONSUMPTIONS.c[name] == value for name, value in key.items()))
    if connection.execute(known).first() is None:
        clamped = None if volume is None else min(volume, BIGINT_MAX)
        connection.execute(insert(CONSUMPTIONS).values(**key, volume=clamped))


def settle(connection: Connection, order_hashes: Iterable[str], *, watched_to: int) -> dict[str, int]:
    """Recompute ``remaining`` and ``status`` of orders from the chain's events; returns those that changed, each with
    the block of the last event that used it.

    What the chain told at publication counts only until the events of that block are here: a reorganised chain may
    take it back.
    """
    hashes = sorted(set(order_hashes))
    changed: dict[str, int] = {}
    for start in range(0, len(hashes), 500):
        part = hashes[start : start + 500]
        used: dict[str, int] = {}
        closed: set[str] = set()
        last: dict[str, int] = {}
        columns = (CONSUMPTIONS.c.order_hash, CONSUMPTIONS.c.volume, CONSUMPTIONS.c.block)
        for order_hash, volume, block in connection.execute(
            select(*columns).where(CONSUMPTIONS.c.order_hash.in_(part))
        ):
            last[order_hash] = max(block, last.get(order_hash, 0))
            if volume is None:
                closed.add(order_hash)
            else:
                used[order_hash] = used.get(order_hash, 0) + volume
        for row in connection.execute(select(ORDERS).where(ORDERS.c.order_hash.in_(part))).all():
            consumed, told = used.get(row.order_hash, 0), row.consumed_at_publication
            if row.published_block > watched_to:
                consumed = max(consumed, told)
            else:
                told = 0
            remaining = 0 if row.order_hash in closed else max(0, row.volume - consumed)
            status = order_status(
                closed=row.order_hash in closed, remaining=remaining, dead=row.dead_at_block is not None
            )
            if (remaining, status, told) != (row.remaining, row.status, row.consumed_at_publication):
                change = update(ORDERS).where(ORDERS.c.order_hash == row.order_hash)
                connection.execute(change.values(remaining=remaining, status=status, consumed_at_publication=told))
            if (remaining, status) != (row.remaining, row.status):
                changed[row.order_hash] = last.get(row.order_hash, watched_to)
    return changed


def told_early(connection: Connection, watched_to: int) -> list[str]:
    """Orders whose consumption the chain told at publication, and whose block is taken in by now."""
    query = select(ORDERS.c.order_hash).where(
        ORDERS.c.consumed_at_publication > 0, ORDERS.c.published_block <= watched_to
    )
    return list(connection.execute(query).scalars())


def order_status(*, closed: bool, remaining: int, dead: bool) -> str:
    """The one status of an order: what the chain says comes before what the market found out."""
    if closed:
        return "canceled"
    if remaining == 0:
        return "filled"
    return "dead" if dead else "open"


def mark_dead(connection: Connection, conditions: Sequence[ColumnElement[bool]], block: int) -> list[str]:
    """Mark open orders dead from a block on; returns their hashes. Block -1 is never undone by a reorganised chain."""
    query = select(ORDERS.c.order_hash).where(ORDERS.c.status == "open", *conditions)
    hashes = list(connection.execute(query).scalars())
    for order_hash in hashes:
        change = update(ORDERS).where(ORDERS.c.order_hash == order_hash)
        connection.execute(change.values(dead_at_block=block, status="dead"))
    return hashes


def roll_back(connection: Connection, block: int) -> list[str]:
    """Forget everything after ``block``: the chain took it back. Returns the orders that changed."""
    lost = set(connection.execute(select(CONSUMPTIONS.c.order_hash).where(CONSUMPTIONS.c.block > block)).scalars())
    connection.execute(delete(CONSUMPTIONS).where(CONSUMPTIONS.c.block > block))
    connection.execute(delete(DEALS).where(DEALS.c.block > block))
    connection.execute(delete(CATEGORIES).where(CATEGORIES.c.block > block))
    lost |= set(connection.execute(select(ORDERS.c.order_hash).where(ORDERS.c.dead_at_block > block)).scalars())
    connection.execute(update(ORDERS).where(ORDERS.c.dead_at_block > block).values(dead_at_block=None))
    return list(settle(connection, lost, watched_to=block))
