"""The collateral service's rules: prove, then keep; answer with what holds now, ask the sources for what does not.

A piece that a source cannot renew is served until it is over. From then on evidence that needs it is refused: an
attacker who cuts us off from a vendor must not win time for a platform that the vendor has since given up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cloister.attestation.bundle import Bundle, build_bundle
from cloister.attestation.collateral import Document
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.pieces import (
    KINDS,
    Family,
    Need,
    Piece,
    PieceId,
    PieceName,
    family_of,
    join_documents,
    roots_of_family,
    split_document,
)
from cloister.attestation.provenance import ProvenPiece, prove_piece, root_fingerprint
from cloister.errors import (
    CloisterError,
    DecodeError,
    NotFound,
    UnavailableError,
    VerificationError,
)
from cloister.services.collateral.feeds import Feed
from cloister.services.collateral.settings import CollateralSettings
from cloister.services.collateral.store import CollateralStore, StoredPiece

log = logging.getLogger("cloister.collateral")

_MOST_ATTEMPTS: Final = 8192
"""Ids whose last attempt is remembered; beyond that the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one piece: ``stored``, ``unchanged`` or ``refused``; a refusal has its code and words."""

    id: str
    result: str
    code: str | None = None
    message: str | None = None

    def to_json(self) -> dict[str, object]:
        """As JSON."""
        return {"id": self.id, "result": self.result, "code": self.code, "message": self.message}


@dataclass(slots=True)
class _Attempt:
    """The last time that an id was asked for. ``failure`` is None once it came."""

    failures: int
    next_at: float
    failure: CloisterError | None


@dataclass(slots=True)
class FeedState:
    """How a source has answered last; for the status page. Times are unix seconds."""

    last_success: int | None = None
    last_failure: int | None = None
    failure: str | None = None


@dataclass(slots=True)
class _Memory:
    """What is known of attempts in this process alone."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    fetching: threading.Lock = field(default_factory=threading.Lock)
    attempts: dict[PieceId, _Attempt] = field(default_factory=dict)
    unknown: deque[float] = field(default_factory=deque)


class CollateralService:
    """Safe to use from several threads."""

    def __init__(
        self,
        settings: CollateralSettings,
        *,
        store: CollateralStore,
        feeds: Sequence[Feed],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._feeds = tuple(feeds)
        self._clock = clock
        self._jitter = jitter
        self._memory = _Memory()
        self.feed_states = {feed.name: FeedState() for feed in self._feeds}

    # --- taking in ---

    def take(self, documents: Iterable[Document], *, source: str) -> list[Outcome]:
        """Prove and keep what documents hold. One that is refused stops no other, and is named."""
        pieces: list[Piece] = []
        outcomes: list[Outcome] = []
        for document in documents:
            try:
                pieces += split_document(document)
            except DecodeError as error:
                outcomes.append(Outcome(f"{document.kind} {document.name[:32]}", "refused", error.code, error.message))
        # What proves others comes first; an intermediate certificate may still come after what it signed.
        later: list[Piece] = []
        for piece in sorted(dict.fromkeys(pieces), key=lambda each: _NAME_ORDER[each.name]):
            outcome = self._try(piece, source)
            if outcome.code == "untrusted-root" and piece.name is PieceName.CERTIFICATE:
                later.append(piece)
            else:
                outcomes.append(outcome)
        outcomes += [self._try(piece, source) for piece in later]
        return outcomes

    def take_bundle(self, bundle: Bundle, *, source: str) -> list[Outcome]:
        """The same for a bundle, whose maker's floors must not be above its own documents."""
        outcomes = self.take(bundle.documents, source=source)
        reached = self._store.floors()
        for (root, id_), floor in bundle.floors.items():
            own = reached.get((root, id_))
            if own is not None and (
                own.issued < floor.issued
                or (own.evaluation or 0) < (floor.evaluation or 0)
                or (own.number or 0) < (floor.number or 0)
            ):
                text = f"the bundle's maker had seen a newer {id_} than the one in it"
                outcomes.append(Outcome(str(id_), "refused", "collateral-rollback", text))
        return outcomes

    def _try(self, piece: Piece, source: str) -> Outcome:
        try:
            proven, is_new = self._take(piece, source)
        except (DecodeError, VerificationError) as error:
            return Outcome(f"{piece.family} {piece.name}", "refused", error.code, error.message)
        return Outcome(str(proven.id), "stored" if is_new else "unchanged")

    def _take(self, piece: Piece, source: str, *, wanted: PieceId | None = None) -> tuple[ProvenPiece, bool]:
        now = int(self._clock())
        proven = prove_piece(
            piece,
            roots=roots_of_family(self._settings.trust, piece.family),
            now=now,
            known=self._store.leading(piece.family),
        )
        if wanted is not None and proven.id != wanted:
            raise VerificationError(f"asked for {wanted}, got {proven.id}", code="collateral-mismatch")
        try:
            is_new = self._store.keep(proven, source=source, now=now, cap=self._settings.max_pieces)
        except VerificationError as error:
            log.warning("refused collateral of %s: %s", source, error.message)
            raise
        if is_new:
            log.info("keeps %s of %s until %d", proven.id, source, proven.next_update)
        return proven, is_new

    # --- answering ---

    def documents_for(self, need: Need) -> tuple[Document, ...]:
        """What a verifier needs for such evidence, nothing of it over.

        Raises:
            VerificationError: ``collateral-missing`` or ``collateral-expired``. UnavailableError: the source is away.
        """
        family = family_of(need.kind)
        if family is None:
            return ()
        if family is Family.TPM:
            now = self._clock()
            crls = [each for each in self._store.all(family) if each.next_update > now]
            return join_documents(need, [(each.id, each.piece) for each in crls])
        wanted = need.pieces()
        found = self._complete(family, wanted)
        if not found:
            for each in self._lacking(family, wanted):
                self._fetch_now(each)
            found = self._complete(family, wanted)
        if not found:
            self._refuse(family, wanted)
        documents = (join_documents(need, [(id_, each[id_].piece) for id_ in wanted]) for each in found)
        return tuple(document for group in documents for document in group)

    def _roots(self, family: Family) -> list[bytes]:
        return [root_fingerprint(der) for der in roots_of_family(self._settings.trust, family)]

    def _complete(self, family: Family, wanted: Sequence[PieceId]) -> list[dict[PieceId, StoredPiece]]:
        """For each root under which every piece is there and holds: those pieces."""
        now = self._clock()
        by_root = (self._store.find(root, wanted) for root in self._roots(family))
        return [
            each for each in by_root if len(each) == len(wanted) and all(p.next_update > now for p in each.values())
        ]

    def _lacking(self, family: Family, wanted: Sequence[PieceId]) -> list[PieceId]:
        """The pieces that no root has, or only over."""
        now = self._clock()
        current = {
            id_
            for root in self._roots(family)
            for id_, piece in self._store.find(root, wanted).items()
            if piece.next_update > now
        }
        return [each for each in wanted if each not in current]

    def _refuse(self, family: Family, wanted: Sequence[PieceId]) -> None:
        """Name the first piece that is not there, and why."""
        kept = {id_: piece for root in self._roots(family) for id_, piece in self._store.find(root, wanted).items()}
        lacking = self._lacking(family, wanted) or list(wanted)
        over = [each for each in lacking if each in kept]
        if over:
            raise VerificationError(
                f"{over[-1]} is over and no source has a newer one",
                code="collateral-expired",
                hint="cloister collateral refresh, or import a newer bundle",
            )
        for each in lacking:
            attempt = self._memory.attempts.get(each)
            if attempt is not None and not isinstance(attempt.failure, NotFound | None):
                raise UnavailableError(
                    f"the source of {each} is away", hint="try again in a moment"
                ) from attempt.failure
        raise VerificationError(
            f"{lacking[-1]} is not kept and no source has it",
            code="collateral-missing",
            hint="import a bundle that holds it, or name a source",
        )

    # --- asking sources ---

    def _fetch_now(self, wanted: PieceId) -> None:
        """Ask the sources for what evidence needs, unless they were asked a moment ago."""
        feeds = self._feeds
        if not feeds:
            return
        with self._memory.lock:
            attempt = self._memory.attempts.get(wanted)
            if attempt is not None and time.monotonic() < attempt.next_at:
                return
            if attempt is None and not self._may_ask():
                raise UnavailableError("too many platforms at once are new here", hint="try again in a minute")
        # One at a time: a crowd of the same evidence asks once, and the others find it kept.
        with self._memory.fetching:
            attempt = self._memory.attempts.get(wanted)
            if attempt is None or time.monotonic() >= attempt.next_at:
                self.fetch(wanted)

    def _may_ask(self) -> bool:
        times, now = self._memory.unknown, time.monotonic()
        while times and now - times[0] > 60:
            times.popleft()
        if len(times) >= self._settings.unknown_per_minute:
            return False
        times.append(now)
        return True

    def fetch(self, wanted: PieceId) -> Outcome:
        """Ask every source in turn until one gives the piece and it is proven. Never raises for a source's fault."""
        failure: CloisterError = NotFound(f"no source has {wanted}")
        for feed in self._feeds:
            state = self.feed_states[feed.name]
            try:
                proven, is_new = self._take(feed.fetch(wanted), feed.name, wanted=wanted)
            except NotFound:
                continue
            except CloisterError as error:
                failure = error
                state.last_failure, state.failure = int(self._clock()), f"{wanted}: {error.message}"
                log.warning("%s gave no %s: %s", feed.name, wanted, error.message)
                continue
            state.last_success, state.failure = int(self._clock()), None
            self._remember(wanted, None)
            return Outcome(str(proven.id), "stored" if is_new else "unchanged")
        self._remember(wanted, failure)
        return Outcome(str(wanted), "refused", failure.code, failure.message)

    def _remember(self, wanted: PieceId, failure: CloisterError | None) -> None:
        settings = self._settings
        with self._memory.lock:
            attempts = self._memory.attempts
            before = attempts.pop(wanted, None)
            failures = 0 if failure is None else 1 + (0 if before is None else before.failures)
            pause = min(settings.backoff_seconds * 2 ** min(max(failures - 1, 0), 20), settings.max_backoff_seconds)
            attempts[wanted] = _Attempt(failures, time.monotonic() + pause * (0.5 + self._jitter() / 2), failure)
            while len(attempts) > _MOST_ATTEMPTS:
                attempts.pop(next(iter(attempts)))

    def refresh(self, *, everything: bool = False) -> list[Outcome]:
        """Ask for each piece that is due, and for what the sources stand for; ``everything`` asks whether due or not.

        What can never be newer (a chip's certificate) is asked for only ahead of its end.
        """
        if not self._feeds:
            return []
        now, outcomes = self._clock(), []
        kept = {each.id: each for each in sorted(self._store.all(), key=lambda each: each.next_update)}
        standing = [each for feed in self._feeds for each in feed.standing]
        for wanted in sorted({*kept, *standing}, key=lambda each: (_NAME_ORDER[each.name], each)):
            attempt = self._memory.attempts.get(wanted)
            if everything or (
                self._is_due(kept.get(wanted), now) and (attempt is None or time.monotonic() >= attempt.next_at)
            ):
                outcomes.append(self.fetch(wanted))
        return outcomes

    def _is_due(self, piece: StoredPiece | None, now: float) -> bool:
        if piece is None:
            return True
        # A vendor whose pieces live shorter than we look ahead is still asked only when half that life is over.
        life = piece.next_update - piece.floor.issued
        ahead = min(self._settings.ahead_seconds, life // 2)
        if piece.id.name is PieceName.CERTIFICATE:
            return now >= piece.next_update - ahead
        return now >= min(piece.came_at + self._settings.refresh_seconds, piece.next_update - ahead)

    # --- telling ---

    def pieces(self) -> list[StoredPiece]:
        """Everything that is kept."""
        return self._store.all()

    def bundle(self) -> bytes:
        """Everything that holds now, as a file for machines without a network."""
        now = self._clock()
        kept = [each for each in self._store.all() if each.next_update > now]
        documents: list[Document] = []
        for root in dict.fromkeys(each.root for each in kept):
            documents += _documents_under({each.id: each for each in kept if each.root == root})
        floors = {(each.root, each.id): each.floor for each in kept if each.id.name is not PieceName.CERTIFICATE}
        return build_bundle(documents, floors, made_at=int(now))


def _documents_under(kept: dict[PieceId, StoredPiece]) -> list[Document]:
    """Every document that can be made of one root's pieces."""
    found: list[Document] = []
    intel, ca_of = Family.INTEL, [id_.key for id_ in kept if id_.name is PieceName.PCK_CRL]
    for id_ in kept:
        if id_.name is PieceName.TCB_INFO:
            kind, _, fmspc = id_.key.partition("/")
            for ca in ca_of:
                need = Need(EvidenceKind(kind), fmspc=fmspc, ca=ca)
                wanted = need.pieces()
                if all(each in kept for each in wanted):
                    found += join_documents(need, [(each, kept[each].piece) for each in wanted])
        elif id_.family is not intel:
            name = "crl" if id_.name is PieceName.CRL else "certificate"
            found.append(Document(KINDS[id_.family][0], name, kept[id_].piece.body))
    return found


_NAME_ORDER: Final = {
    name: place
    for place, name in enumerate(
        (
            *(PieceName.ROOT_CRL, PieceName.CRL, PieceName.PCK_CRL, PieceName.CERTIFICATE),
            *(PieceName.TCB_INFO, PieceName.QE_IDENTITY),
        )
    )
}
