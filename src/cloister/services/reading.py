"""Reads what strangers wrote on the chain without stumbling over it.

Contracts keep text as bytes that nobody checked. A name or params that are not UTF-8 must cost their author a
missing entry, and not stop a follower for good.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from cloister.chain.logs import ChainEvent, Log, decode_log
from cloister.chain.rpc import Block, JsonRpc, Read, TransactionReverted, block_parameter
from cloister.errors import DecodeError, RemoteError
from cloister.protocol.codec import parse_hex, to_hex

T = TypeVar("T")

log = logging.getLogger("cloister.reading")


class Unreadable:
    """Stands for a value that the chain has and nobody can read."""


UNREADABLE: Final = Unreadable()


def readable_events(logs: Iterable[Log]) -> Iterator[tuple[Log, ChainEvent]]:
    """Yield the events that decode, in order."""
    for each in logs:
        try:
            event = decode_log(each)
        except DecodeError:
            log.warning("log %d of block %d does not decode and is skipped", each.log_index, each.block_number)
            continue
        if event is not None:
            yield each, event


def read_each(rpc: JsonRpc, reads: Sequence[Read[T]], *, block: Block) -> list[T | Unreadable]:
    """Make many reads at one block; a value that does not decode, or a contract that reverts, is ``UNREADABLE``.

    Raises: UnavailableError and RemoteError when the node itself fails.
    """
    calls = (("eth_call", [{"to": str(read.to), "data": to_hex(read.data)}, block_parameter(block)]) for read in reads)
    found: list[T | Unreadable] = []
    for read, answer in zip(reads, rpc.try_batch(calls), strict=True):
        if isinstance(answer, RemoteError) and not isinstance(answer, TransactionReverted):
            raise answer
        try:
            found.append(UNREADABLE if isinstance(answer, RemoteError) else read.decode(parse_hex(answer)))
        except DecodeError:
            log.warning("an answer of %s does not decode and is skipped", read.to)
            found.append(UNREADABLE)
    return found
