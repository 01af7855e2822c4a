"""Puts a scheduler together: HTTP face, the thread that watches the chain and the one that serves its duties."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloister.chain.events import EventReader
from cloister.chain.logs import TOPICS
from cloister.errors import CloisterError, UnavailableError
from cloister.services.authentication import RequestAuthenticator
from cloister.services.descriptions import Description
from cloister.services.scheduler.bell import Bell
from cloister.services.scheduler.description import SCHEDULER
from cloister.services.scheduler.duties import Duties
from cloister.services.scheduler.http import build_router
from cloister.services.scheduler.service import ChainClock, SchedulerService
from cloister.services.scheduler.sight import DatasetOrders, NoDatasetOrders, Sight
from cloister.services.scheduler.store import Store
from cloister.services.scheduler.watcher import WATCHED, Watcher

if TYPE_CHECKING:
    from fastapi import APIRouter

    from cloister.chain.contracts import Hub
    from cloister.chain.sender import TransactionSender
    from cloister.protocol.signatures import PrivateKey
    from cloister.services.database import Database
    from cloister.services.scheduler.settings import SchedulerSettings

log = logging.getLogger("cloister.scheduler")

DUTY_SECONDS = 0.25
"""Pause between rounds of duties when nothing happens."""
STALE_SECONDS = 60.0
MAX_PAUSE = 5.0


class SchedulerPart:
    """A scheduler as a part of an application. Of several replicas on one database, one leads and watches the chain."""

    name = "scheduler"

    def __init__(
        self,
        settings: SchedulerSettings,
        *,
        database: Database,
        service: SchedulerService,
        authenticator: RequestAuthenticator,
        store: Store,
        watcher: Watcher,
        duties: Duties,
        work: threading.Event,
    ) -> None:
        self._settings = settings
        self._database = database
        self._service = service
        self._authenticator = authenticator
        self._store = store
        self._watcher = watcher
        self._duties = duties
        self._work = work
        self._holder = secrets.token_hex(16)
        self._lead_name = f"scheduler:{settings.chain_id}:{settings.hub}"
        self._stop = threading.Event()
        self._lead_until = 0.0  # on the monotonic clock; nothing is sent after it, whatever else hangs
        self._lead_turn = 0  # counts the times that the lead came to us
        self._led_since = 0.0
        self._watched_turn = 0
        self._looked_at = 0.0
        self._threads: list[threading.Thread] = []

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return SCHEDULER

    def router(self) -> APIRouter:
        return build_router(self._service, self._authenticator)

    def start(self) -> None:
        self._database.upgrade("scheduler")
        self._authenticator.start()
        for target in (self._lead, self._watch, self._serve_duties):
            thread = threading.Thread(target=target, name=f"scheduler{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        self._work.set()
        for thread in self._threads:
            thread.join(timeout=15)
        if self._is_leading():
            try:
                self._store.resign(self._lead_name, self._holder)
            except CloisterError as error:
                log.info("the lead was not given back: %s", error.message)

    def check_ready(self) -> None:
        self._database.check_ready()
        if self._is_leading() and time.monotonic() - max(self._looked_at, self._led_since) > STALE_SECONDS:
            raise UnavailableError("the scheduler does not see the chain")

    def _is_leading(self) -> bool:
        return time.monotonic() < self._lead_until

    def _lead(self) -> None:
        """Keep the lead, and do what needs no chain, in a thread that never waits for one."""
        pause = min(1.0, self._settings.leader_seconds / 5)

        def keep() -> None:
            asked_at = time.monotonic()
            if not self._store.lead(
                self._lead_name, self._holder, now=time.time(), seconds=self._settings.leader_seconds
            ):
                self._lead_until = 0.0
                return
            if not self._is_leading():
                self._lead_turn += 1
                self._led_since = asked_at
            self._lead_until = asked_at + self._settings.leader_seconds
            if self._sees_all():
                # Workers could not be heard while no scheduler was there: their silence counts from now on.
                heard_for = time.monotonic() - self._led_since
                self._duties.sweep(silence_counts=heard_for > self._settings.lease_seconds)

        self._repeat(keep, lambda: self._stop.wait(pause))

    def _sees_all(self) -> bool:
        """Whether we lead and our database shows the chain."""
        return self._is_leading() and self._watched_turn == self._lead_turn and self._watcher.is_caught_up

    def _watch(self) -> None:
        self._repeat(self._look, lambda: self._stop.wait(self._settings.poll_seconds))

    def _look(self) -> None:
        turn = self._lead_turn
        if not self._is_leading():
            self._stop.wait(0.1)
            return
        if self._watched_turn != turn:
            # Another replica may have gone on from where we were.
            self._watcher.forget_place()
            self._watched_turn = turn
        self._watcher.look()
        self._looked_at = time.monotonic()

    def _serve_duties(self) -> None:
        recovered = 0

        def pause() -> None:
            self._work.wait(DUTY_SECONDS)
            self._work.clear()

        def tend() -> None:
            nonlocal recovered
            if not self._sees_all():
                return
            if recovered != self._lead_turn:
                self._duties.recover()
                recovered = self._lead_turn
            self._duties.tend()

        self._repeat(tend, pause)

    def _repeat(self, action: Callable[[], None], pause: Callable[[], object]) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                action()
                failures = 0
            except CloisterError as error:
                failures += 1
                log.warning("the scheduler goes on after: %s", error.message)
                self._stop.wait(min(MAX_PAUSE, 0.1 * 2 ** min(failures, 10)))
            except Exception:
                failures += 1
                log.exception("the scheduler goes on after an error of its own")
                self._stop.wait(min(MAX_PAUSE, 0.1 * 2 ** min(failures, 10)))
            pause()


def build_scheduler_part(
    settings: SchedulerSettings,
    *,
    database: Database,
    key: PrivateKey,
    hub: Hub,
    sender: TransactionSender,
    orders: DatasetOrders | None = None,
    clock: Callable[[], float] = time.time,
) -> SchedulerPart:
    """Build a scheduler over a database and a chain. ``key`` owns the workerpools; ``sender`` sends with it."""
    bell, chain_clock, work = Bell(), ChainClock(), threading.Event()
    store = Store(database, window=settings.deal_window)
    service = SchedulerService(database, key, settings, bell=bell, chain_clock=chain_clock, clock=clock)

    def news() -> None:
        bell.ring()
        work.set()

    watcher = Watcher(
        database,
        store,
        Sight(hub, owner=key.address, orders=orders or NoDatasetOrders()),
        settings,
        open_reader=lambda block: EventReader(hub.rpc, [hub.address], [TOPICS[name] for name in WATCHED], block),
        bell=bell,
        chain_clock=chain_clock,
        clock=clock,
    )
    watcher.news = news
    duties = Duties(store, service.leasing, hub, sender, settings, chain_clock=chain_clock, news=news, clock=clock)
    return SchedulerPart(
        settings,
        database=database,
        service=service,
        authenticator=RequestAuthenticator(database, f"scheduler:{settings.chain_id}:{settings.hub}", clock=clock),
        store=store,
        watcher=watcher,
        duties=duties,
        work=work,
    )
