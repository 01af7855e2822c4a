"""What is kept and until when, as people and monitors read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cloister.errors import CloisterError
from cloister.services.collateral.service import CollateralService
from cloister.services.collateral.store import StoredPiece

DAY: Final = 86400


def describe_piece(piece: StoredPiece, now: float) -> dict[str, object]:
    """One line of the status."""
    return {
        "family": str(piece.id.family),
        "kind": str(piece.id.name),
        "key": piece.id.key,
        "root": piece.root.hex(),
        "issued": piece.floor.issued,
        "next_update": piece.next_update,
        "days_left": round((piece.next_update - now) / DAY, 2),
        "expired": piece.next_update <= now,
        "evaluation_number": piece.floor.evaluation,
        "crl_number": piece.floor.number,
        "digest": hashlib.sha256(piece.piece.body).hexdigest(),
        "source": piece.source,
        "came_at": piece.came_at,
    }


def describe_service(service: CollateralService, now: float) -> dict[str, object]:
    """The whole status."""
    pieces = service.pieces()
    return {
        "now": int(now),
        "documents": [describe_piece(each, now) for each in pieces],
        "expired": sum(each.next_update <= now for each in pieces),
        "sources": [
            {
                "name": name,
                "last_success": state.last_success,
                "last_failure": state.last_failure,
                "failure": state.failure,
            }
            for name, state in service.feed_states.items()
        ],
    }


class CollateralMetrics(Collector):
    """Gauges by family and kind of piece, read when a monitor asks. Keys are no labels: there may be thousands of chips."""

    def __init__(self, service: CollateralService, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Names only, so that nothing is read before the service has its tables."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """Read the store."""
        left, count = _families()
        now = self._clock()
        try:
            pieces = self._service.pieces()
        except CloisterError:
            return
        groups: dict[tuple[str, str], list[StoredPiece]] = {}
        for each in pieces:
            groups.setdefault((str(each.id.family), str(each.id.name)), []).append(each)
        for labels, group in groups.items():
            left.add_metric(labels, min(each.next_update for each in group) - now)
            over = sum(each.next_update <= now for each in group)
            count.add_metric((*labels, "expired"), over)
            count.add_metric((*labels, "current"), len(group) - over)
        yield left
        yield count


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    labels = ["family", "kind"]
    return (
        GaugeMetricFamily(
            "cloister_collateral_seconds_left", "Until the first piece of a kind is over; negative after", labels=labels
        ),
        GaugeMetricFamily("cloister_collateral_pieces", "Pieces kept", labels=[*labels, "state"]),
    )
