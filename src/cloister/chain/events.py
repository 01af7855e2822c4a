"""Reads events in order and says when the chain took some back.

The reader remembers the hashes of recent blocks. When a block that it has told is no longer on the chain it says from
where (``rolled_back_to``), and tells the new blocks. Whoever follows undoes what it knows above that block, applies the
batch and stores ``batch.cursor``, all in one transaction of its own; after a crash it goes on from that cursor and
misses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloister.chain.logs import Log, parse_log
from cloister.chain.rpc import Head, JsonRpc, RpcError, parse_head
from cloister.errors import DecodeError, InputError, UnavailableError
from cloister.protocol.codec import Address, Bytes32, check_keys, parse_uint, parse_word

WINDOW: Final = 128
"""How many recent blocks are remembered: the deepest change of the chain that is undone exactly."""
RANGE: Final = 2000
"""Most blocks asked for at once; halved when a node finds it too much."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has told, and the hashes of the last blocks, oldest first. Store it with what was applied."""

    next_block: int
    recent: tuple[tuple[int, Bytes32], ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the cursor as JSON members."""
        return {"next_block": self.next_block, "recent": [[number, name] for number, name in self.recent]}


def parse_cursor(value: object) -> Cursor:
    """Read a stored cursor.

    Raises:
        DecodeError: a missing or malformed member.
    """
    given = check_keys("cursor", value, required=("next_block", "recent"))
    recent = given["recent"]
    if not isinstance(recent, list) or len(recent) > WINDOW:
        raise DecodeError("cursor: recent is not a short list")
    pairs: list[tuple[int, Bytes32]] = []
    for pair in recent:
        if not isinstance(pair, list) or len(pair) != 2:
            raise DecodeError("cursor: recent holds pairs")
        pairs.append((parse_uint("block", pair[0]), parse_word("hash", pair[1])))
    return Cursor(parse_uint("next_block", given["next_block"]), tuple(pairs))


@dataclass(frozen=True, slots=True)
class Batch:
    """What is new. Apply it in this order: undo above ``rolled_back_to``, then ``logs``.

    ``blocks`` holds the headers of all blocks with logs and of the newest ones; ``rolled_back_to`` is the last block
    that still stands, None when nothing was taken back; ``through`` the last block told. An empty batch changes
    nothing.
    """

    blocks: tuple[Head, ...]
    logs: tuple[Log, ...]
    rolled_back_to: int | None
    through: int
    head: Head
    cursor: Cursor

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened."""
        return not self.blocks and not self.logs and self.rolled_back_to is None

    @property
    def is_caught_up(self) -> bool:
        """Whether the reader has told the newest block."""
        return self.through >= self.head.number

    def timestamps(self) -> dict[int, int]:
        """Unix time by number of the blocks with logs."""
        return {block.number: block.timestamp for block in self.blocks}


class EventReader:
    """Follows some addresses' events. For one thread.

    ``topics`` filters as ``eth_getLogs`` does: a list of alternatives for topic 0 (empty for all events).
    ``confirmations`` holds back that many newest blocks.
    """

    def __init__(
        self,
        rpc: JsonRpc,
        addresses: Iterable[Address],
        topics: Iterable[Bytes32] = (),
        from_block: int = 0,
        *,
        cursor: Cursor | None = None,
        confirmations: int = 0,
    ) -> None:
        self._rpc = rpc
        self._addresses = sorted({Address(address) for address in addresses})
        if not self._addresses:
            raise InputError("an event reader follows at least one address")
        self._topics = sorted(set(topics))
        self._from_block = from_block
        self._cursor = cursor or Cursor(from_block)
        self._confirmations = confirmations
        self._range = RANGE

    @property
    def cursor(self) -> Cursor:
        """How far was told."""
        return self._cursor

    def poll(self) -> Batch:
        """Return what is new since the last poll; never waits.

        Raises:
            UnavailableError: the node does not answer, or the chain changed while it was read (poll again).
            RpcError: the node refused.
            DecodeError: the node's answer is not what the protocol says.
        """
        told = self._cursor.recent[-1:]
        blocks = ["latest", *(hex(number) for number, _ in told)]
        newest, *standing = self._rpc.batch([("eth_getBlockByNumber", (block, False)) for block in blocks])
        head = parse_head(newest)
        last = head.number - self._confirmations
        if [None if block is None else parse_head(block).hash for block in standing] == [name for _, name in told]:
            cursor, rolled_back_to = self._cursor, None
        else:
            cursor, rolled_back_to = self._find_standing(last)
        first = cursor.next_block
        if last < first:
            self._cursor = cursor
            return Batch((), (), rolled_back_to, first - 1, head, cursor)
        through, logs = self._load_logs(first, last)
        # Headers of blocks with logs give their times; those of the newest blocks are what a change is noticed by.
        numbers = {log.block_number for log in logs} | set(range(max(first, through - WINDOW + 1), through + 1))
        headers = self._load_headers(sorted(numbers))
        for log in logs:
            if headers[log.block_number].hash != log.block_hash:
                raise UnavailableError("the chain changed while it was read", code="chain-changed")
        if cursor.recent and cursor.recent[-1][0] == first - 1 and first in headers:
            _check_link(cursor.recent[-1][1], headers[first])
        added = [(number, headers[number].hash) for number in sorted(headers) if number > through - WINDOW]
        self._cursor = Cursor(through + 1, (*cursor.recent, *added)[-WINDOW:])
        return Batch(
            blocks=tuple(headers[number] for number in sorted(headers)),
            logs=tuple(logs),
            rolled_back_to=rolled_back_to,
            through=through,
            head=head,
            cursor=self._cursor,
        )

    def _find_standing(self, last: int) -> tuple[Cursor, int]:
        """Find the newest remembered block that is still on the chain and go back to it."""
        recent = [pair for pair in self._cursor.recent if pair[0] <= last]
        hashes = self._hashes([number for number, _ in recent])
        kept = 0
        while kept < len(recent) and hashes[kept] == recent[kept][1]:
            kept += 1
        if kept == 0:
            # Deeper than remembered: start over.
            return Cursor(self._from_block), self._from_block - 1
        ancestor = recent[kept - 1][0]
        return Cursor(ancestor + 1, tuple(recent[:kept])), ancestor

    def _hashes(self, numbers: Sequence[int]) -> list[Bytes32 | None]:
        answers = self._rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
        return [None if answer is None else parse_head(answer).hash for answer in answers]

    def _load_headers(self, numbers: Sequence[int]) -> Mapping[int, Head]:
        answers = self._rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
        headers: dict[int, Head] = {}
        for number, answer in zip(numbers, answers, strict=True):
            if answer is None:
                raise UnavailableError("the chain changed while it was read", code="chain-changed")
            headers[number] = parse_head(answer)
        for number in numbers:
            before = headers.get(number - 1)
            if before is not None:
                _check_link(before.hash, headers[number])
        return headers

    def _load_logs(self, first: int, last: int) -> tuple[int, list[Log]]:
        """Return the last block covered and the logs up to it, in the chain's order."""
        while True:
            through = min(last, first + self._range - 1)
            query: dict[str, object] = {
                "fromBlock": hex(first),
                "toBlock": hex(through),
                "address": self._addresses,
            }
            if self._topics:
                query["topics"] = [self._topics]
            try:
                answer = self._rpc.call("eth_getLogs", query)
            except RpcError:
                # Nodes refuse ranges that they find too long or too full, each in its own words.
                if self._range == 1:
                    raise
                self._range = max(1, self._range // 4)
                continue
            if not isinstance(answer, list):
                raise DecodeError("the node answered eth_getLogs with no list")
            logs = sorted((parse_log(item) for item in answer), key=lambda log: (log.block_number, log.log_index))
            known = set(self._addresses)
            if any(not first <= log.block_number <= through or log.address not in known for log in logs):
                raise DecodeError("the node answered eth_getLogs with logs that were not asked for")
            self._range = min(RANGE, self._range * 2)
            return through, logs


def _check_link(parent: Bytes32, block: Head) -> None:
    """Refuse a block that does not follow the one before it: they were read from two versions of the chain."""
    if block.parent != parent:
        raise UnavailableError("the chain changed while it was read", code="chain-changed")
