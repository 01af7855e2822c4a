"""What the collateral service keeps: the newest piece of each id, and the floors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Table, and_, func, insert, select, tuple_, update
from sqlalchemy.orm import Session

from cloister.attestation.bundle import RootedId
from cloister.attestation.pieces import Family, Piece, PieceId, PieceName
from cloister.attestation.provenance import Floor, ProvenPiece, raise_floor
from cloister.errors import Conflict, UnavailableError
from cloister.services.collateral.tables import FLOORS, PIECES
from cloister.services.database import Database

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """A piece that was proven before it was stored. Times are unix seconds; ``came_at``: when a source last gave it."""

    piece: Piece
    id: PieceId
    root: bytes
    floor: Floor
    next_update: int
    source: str
    came_at: int


class CollateralStore:
    """Safe to use from several threads, and from several replicas or programs on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, proven: ProvenPiece, *, source: str, now: int, cap: int) -> bool:
        """Store a piece in place of the one before, and raise the floor, both on disk when this returns.

        Answers whether it is another one than before. Of two certificates under one id the one that lasts longer stays.

        Raises:
            VerificationError: ``collateral-rollback``: it is below the floor. UnavailableError: ``cap`` pieces are kept.
        """
        for _ in range(_ATTEMPTS):
            try:
                with self._database.session_scope() as session:
                    return _keep(session, proven, source[:64], now, cap)
            except Conflict:
                # Another replica wrote the same row first: its floor counts now.
                continue
        raise UnavailableError("the collateral database is busy", hint="try again in a moment")

    def find(self, root: bytes, ids: Iterable[PieceId]) -> dict[PieceId, StoredPiece]:
        """The pieces of these ids under a root."""
        wanted = [(str(each.family), str(each.name), each.key) for each in ids]
        query = select(PIECES).where(
            PIECES.c.root == root, tuple_(PIECES.c.family, PIECES.c.name, PIECES.c.key).in_(wanted)
        )
        with self._database.read_scope() as session:
            found = map(_stored, session.execute(query))
            return {each.id: each for each in found}

    def all(self, family: Family | None = None) -> list[StoredPiece]:
        """Every piece, in the order of family, name and key."""
        query = select(PIECES).order_by(PIECES.c.family, PIECES.c.name, PIECES.c.key, PIECES.c.root)
        if family is not None:
            query = query.where(PIECES.c.family == str(family))
        with self._database.read_scope() as session:
            return [_stored(row) for row in session.execute(query)]

    def leading(self, family: Family) -> list[StoredPiece]:
        """What proves other pieces of a family: CRLs and intermediate certificates."""
        names = (PieceName.ROOT_CRL, PieceName.CRL)
        intermediate = and_(PIECES.c.name == str(PieceName.CERTIFICATE), PIECES.c.key.not_like("%/%/%"))
        query = select(PIECES).where(
            PIECES.c.family == str(family), PIECES.c.name.in_([str(name) for name in names]) | intermediate
        )
        with self._database.read_scope() as session:
            return [_stored(row) for row in session.execute(query)]

    def floors(self) -> dict[RootedId, Floor]:
        """Every floor."""
        with self._database.read_scope() as session:
            return {
                (bytes(row.root), _id(row)): Floor(row.issued, row.evaluation, row.number)
                for row in session.execute(select(FLOORS))
            }


def _keep(session: Session, proven: ProvenPiece, source: str, now: int, cap: int) -> bool:
    where = {"root": proven.root, "family": str(proven.id.family), "name": str(proven.id.name), "key": proven.id.key}
    floor = session.execute(_one(FLOORS, where)).one_or_none()
    # The floor's row is the lock: who holds it decides about the piece too.
    raised = raise_floor(None if floor is None else Floor(floor.issued, floor.evaluation, floor.number), proven)
    before = session.execute(_one(PIECES, where)).one_or_none()
    if before is None and session.execute(select(func.count()).select_from(PIECES)).scalar_one() >= cap:
        raise UnavailableError(f"{cap} pieces of collateral are kept, which is the cap", hint="raise max_pieces")
    numbers = {"issued": raised.issued, "evaluation": raised.evaluation, "number": raised.number}
    if floor is None:
        session.execute(insert(FLOORS).values(**where, **numbers))
    elif proven.id.name is not PieceName.CERTIFICATE:
        session.execute(update(FLOORS).where(*_is(FLOORS, where)).values(**numbers))
    content = {"body": proven.piece.body, "signature": proven.piece.signature, "chain": proven.piece.chain}
    if before is not None and (
        content == {name: bytes(getattr(before, name)) for name in content}
        or (proven.id.name is PieceName.CERTIFICATE and before.next_update > proven.next_update)
    ):
        session.execute(update(PIECES).where(*_is(PIECES, where)).values(source=source, came_at=now))
        return False
    own = proven.floor
    facts = {"issued": own.issued, "evaluation": own.evaluation, "number": own.number}
    values = {**content, **facts, "next_update": proven.next_update, "source": source, "came_at": now}
    if before is None:
        session.execute(insert(PIECES).values(**where, **values))
    else:
        session.execute(update(PIECES).where(*_is(PIECES, where)).values(**values))
    return True


def _is(table: Table, where: Mapping[str, Any]) -> list[Any]:
    return [table.c[name] == value for name, value in where.items()]


def _one(table: Table, where: Mapping[str, Any]) -> Any:
    return select(table).where(*_is(table, where)).with_for_update()


def _id(row: Row[Any]) -> PieceId:
    return PieceId(Family(row.family), PieceName(row.name), row.key)


def _stored(row: Row[Any]) -> StoredPiece:
    id_ = _id(row)
    return StoredPiece(
        piece=Piece(id_.family, id_.name, bytes(row.body), bytes(row.signature), bytes(row.chain)),
        id=id_,
        root=bytes(row.root),
        floor=Floor(row.issued, row.evaluation, row.number),
        next_update=row.next_update,
        source=row.source,
        came_at=row.came_at,
    )
