"""Who calls: verifies the signed ``Authorization: Cloister …`` header, and takes each signed request once.

The signature covers audience, method, target, body, time and nonce (``cloister.protocol.authentication``). A request is
accepted within ``MAX_AGE`` seconds of its signing, and its nonce is kept on disk until then, so a copy of it is
refused also after a restart and by every replica on the same database.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio.to_thread
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert
from starlette.requests import Request

from cloister.errors import Conflict, Unauthenticated
from cloister.protocol.authentication import AuthenticatedRequest, verify_request
from cloister.services.database import Database

MAX_AGE = 60
"""Seconds between signing and arrival; also how far ahead a caller's clock may be."""

_PRUNE_SECONDS = 30

metadata = MetaData()

request_nonces = Table(
    "request_nonces",
    metadata,
    Column("audience", String(128), primary_key=True),
    Column("address", String(42), primary_key=True),
    Column("nonce", String(64), primary_key=True),
    Column("expires_at", Integer, nullable=False, index=True),
)


class ReplayGuard:
    """Takes each (audience, address, nonce) once, durably. ``start`` must run before the first use."""

    def __init__(self, database: Database, audience: str) -> None:
        self._database = database
        self._audience = audience
        self._pruned_at = 0.0

    def start(self) -> None:
        """Create or migrate the table."""
        self._database.upgrade("authentication")

    def take(self, request: AuthenticatedRequest, *, now: int, max_age: int = MAX_AGE) -> None:
        """Record the request's nonce; on disk when this returns.

        Raises:
            Unauthenticated: it was taken before (``code`` is ``replayed``).
            UnavailableError: the database does not answer.
        """
        row = {
            "audience": self._audience,
            "address": str(request.address),
            "nonce": str(request.nonce),
            # Kept longer than the verifier allows, so that the clocks of replicas may differ by that much.
            "expires_at": request.expires_at + max_age,
        }
        try:
            with self._database.session_scope() as session:
                if now - self._pruned_at >= _PRUNE_SECONDS:
                    session.execute(delete(request_nonces).where(request_nonces.c.expires_at < now))
                    self._pruned_at = now
                session.execute(insert(request_nonces).values(**row))
        except Conflict:
            raise Unauthenticated(
                "this signed request was used before", hint="sign a new one with a new nonce", code="replayed"
            ) from None


class RequestAuthenticator:
    """A FastAPI dependency that gives the proven caller.

    ``proven = Depends(authenticator)`` outside, ``caller: AuthenticatedRequest = proven`` in the endpoint's
    signature: under postponed annotations FastAPI cannot see a local name inside ``Annotated``. Call ``start`` from
    the part's ``start``.
    """

    def __init__(
        self, database: Database, audience: str, *, max_age: int = MAX_AGE, clock: Callable[[], float] = time.time
    ) -> None:
        self._guard = ReplayGuard(database, audience)
        self._audience = audience
        self._max_age = max_age
        self._clock = clock

    def start(self) -> None:
        """Create or migrate the nonce table."""
        self._guard.start()

    async def __call__(self, request: Request) -> AuthenticatedRequest:
        """Verify the request's header and take its nonce.

        Raises:
            Unauthenticated: no header, one that does not verify, one too old, or one used before.
        """
        header = request.headers.get("authorization")
        body = await request.body()
        return await anyio.to_thread.run_sync(self._verify, header, request.method, signed_target(request), body)

    def _verify(self, header: str | None, method: str, target: str, body: bytes) -> AuthenticatedRequest:
        now = int(self._clock())
        proven = verify_request(
            header,
            audience=self._audience,
            method=method,
            target=target,
            body=body,
            now=now,
            max_age=self._max_age,
        )
        self._guard.take(proven, now=now, max_age=self._max_age)
        return proven


def signed_target(request: Request) -> str:
    """The request target as it was sent: percent-encoded path, and the query when there is one."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return (raw.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")
