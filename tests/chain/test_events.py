"""The event reader on a real chain that goes forward, back and away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.anvil import CHAIN_ID, Anvil, running_anvil
from tests.support.http import Peer, Reply

from cloister.chain.calls import Call
from cloister.chain.events import WINDOW, Batch, Cursor, EventReader, parse_cursor
from cloister.chain.rpc import JsonRpc
from cloister.errors import DecodeError, InputError, UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.transactions import Transaction
from cloister.transport import Http

# Emits its call data's first word as topic 0: CALLDATALOAD(0), LOG1 of nothing.
EMITTING_RUNTIME = bytes.fromhex("5f355f5fa100")
EMITTER = Address("0x" + "e1" * 20)
OTHER = Address("0x" + "e2" * 20)
KEY = PrivateKey(b"\x51" * 32)


@pytest.fixture
def chain() -> Iterator[Anvil]:
    """A chain that mines on demand and has two emitters."""
    with running_anvil("--no-mining", "--order", "fifo") as node:
        node.fund(KEY)
        for address in (EMITTER, OTHER):
            node.rpc.call("anvil_setCode", address, "0x" + EMITTING_RUNTIME.hex())
        yield node


def topic(number: int) -> Bytes32:
    return Bytes32.from_raw(number.to_bytes(32, "big"))


def emit(node: Anvil, *numbers: int, emitter: Address = EMITTER) -> None:
    """Emit events and mine them in one block."""
    rpc = node.rpc
    nonce = rpc.transaction_count(KEY.address, block="latest")
    for offset, number in enumerate(numbers):
        call = Call(emitter, topic(number).raw)
        signed = Transaction(CHAIN_ID, nonce + offset, 0, 10**10, 100_000, call.to, 0, call.data).sign(KEY)
        rpc.call("eth_sendRawTransaction", "0x" + signed.raw.hex())
    node.mine()


class Follower:
    """What a service does with batches: keeps what stands and the cursor."""

    def __init__(self, node: Anvil, *, from_block: int = 0, cursor: Cursor | None = None) -> None:
        self.reader = EventReader(node.rpc, [EMITTER], from_block=from_block, cursor=cursor)
        self.known: list[tuple[int, int]] = []

    def follow(self) -> Batch:
        batch = self.reader.poll()
        if batch.rolled_back_to is not None:
            self.known = [item for item in self.known if item[0] <= batch.rolled_back_to]
        self.known += [(log.block_number, int(log.topics[0], 16)) for log in batch.logs]
        return batch

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.known]


def test_tells_events_in_order_once(chain: Anvil) -> None:
    follower = Follower(chain)
    emit(chain, 3, 1, 2)
    emit(chain, 5)
    emit(chain, 99, emitter=OTHER)
    batch = follower.follow()
    assert follower.numbers == [3, 1, 2, 5]
    assert batch.is_caught_up
    assert batch.timestamps()[batch.logs[0].block_number] > 0
    again = follower.follow()
    assert again.is_empty
    assert again.is_caught_up
    emit(chain, 6)
    follower.follow()
    assert follower.numbers == [3, 1, 2, 5, 6]


def test_filters_topics(chain: Anvil) -> None:
    reader = EventReader(chain.rpc, [EMITTER, OTHER], [topic(2), topic(4)])
    emit(chain, 1, 2, 3)
    emit(chain, 4, emitter=OTHER)
    assert [int(log.topics[0], 16) for log in reader.poll().logs] == [2, 4]


def test_goes_on_from_a_stored_cursor(chain: Anvil) -> None:
    follower = Follower(chain)
    emit(chain, 1)
    stored = json.dumps(follower.follow().cursor.to_json())
    emit(chain, 2)
    later = Follower(chain, cursor=parse_cursor(json.loads(stored)))
    later.follow()
    assert later.numbers == [2]


def test_takes_back_what_the_chain_took_back(chain: Anvil) -> None:
    follower = Follower(chain)
    emit(chain, 1)
    snapshot = chain.rpc.call("evm_snapshot")
    emit(chain, 2)
    emit(chain, 3)
    follower.follow()
    assert follower.numbers == [1, 2, 3]
    assert chain.rpc.call("evm_revert", snapshot) is True
    emit(chain, 4)
    batch = follower.follow()
    assert batch.rolled_back_to == 1
    assert follower.numbers == [1, 4]
    emit(chain, 5)
    follower.follow()
    assert follower.numbers == [1, 4, 5]


def test_notices_a_change_after_a_restart(chain: Anvil) -> None:
    follower = Follower(chain)
    emit(chain, 1)
    snapshot = chain.rpc.call("evm_snapshot")
    emit(chain, 2)
    stored = parse_cursor(json.loads(json.dumps(follower.follow().cursor.to_json())))
    chain.rpc.call("evm_revert", snapshot)
    emit(chain, 3)
    emit(chain, 4)
    later = Follower(chain, cursor=stored)
    later.known = list(follower.known)
    later.follow()
    assert later.numbers == [1, 3, 4]


def test_a_chain_that_only_went_back(chain: Anvil) -> None:
    follower = Follower(chain)
    emit(chain, 1)
    snapshot = chain.rpc.call("evm_snapshot")
    emit(chain, 2)
    follower.follow()
    chain.rpc.call("evm_revert", snapshot)
    batch = follower.follow()
    assert batch.rolled_back_to == 1
    assert follower.numbers == [1]
    assert follower.follow().is_empty


def test_a_change_deeper_than_remembered_starts_over(chain: Anvil) -> None:
    first = chain.rpc.block_number() + 1
    follower = Follower(chain, from_block=first)
    snapshot = chain.rpc.call("evm_snapshot")
    emit(chain, 1)
    chain.rpc.call("anvil_mine", hex(WINDOW + 10))
    follower.follow()
    assert follower.numbers == [1]
    assert len(follower.reader.cursor.recent) == WINDOW
    chain.rpc.call("evm_revert", snapshot)
    emit(chain, 2)
    chain.rpc.call("anvil_mine", hex(3))
    batch = follower.follow()
    assert batch.rolled_back_to == first - 1
    assert follower.numbers == [2]


def test_catches_up_over_a_long_way(chain: Anvil) -> None:
    emit(chain, 1)
    chain.rpc.call("anvil_mine", hex(5000))
    emit(chain, 2)
    follower = Follower(chain)
    batches = [follower.follow()]
    while not batches[-1].is_caught_up:
        batches.append(follower.follow())
    assert follower.numbers == [1, 2]
    assert len(batches) == 3


def test_holds_back_what_is_not_confirmed(chain: Anvil) -> None:
    reader = EventReader(chain.rpc, [EMITTER], confirmations=2)
    emit(chain, 1)
    emit(chain, 2)
    assert reader.poll().logs == ()
    chain.mine()
    assert [int(log.topics[0], 16) for log in reader.poll().logs] == [1]
    assert reader.poll().is_empty
    chain.mine()
    assert [int(log.topics[0], 16) for log in reader.poll().logs] == [2]


def test_asks_for_less_where_a_node_finds_it_too_much(chain: Anvil, peer: Callable[..., Peer]) -> None:
    """Public nodes cap the range of eth_getLogs, each in its own words."""

    def forward(request: dict[str, Any]) -> Reply:
        body = json.loads(request["body"])
        if isinstance(body, dict) and body["method"] == "eth_getLogs":
            query = body["params"][0]
            if int(query["toBlock"], 16) - int(query["fromBlock"], 16) >= 100:
                error = {"code": -32005, "message": "block range is too wide"}
                return Reply(body=json.dumps({"jsonrpc": "2.0", "id": body["id"], "error": error}).encode())
        return Reply(body=json.dumps(Http(chain.url).json("POST", "", body=body)).encode())

    emit(chain, 1)
    chain.rpc.call("anvil_mine", hex(300))
    emit(chain, 2)
    reader = EventReader(JsonRpc(peer(forward).url), [EMITTER])
    numbers: list[int] = []
    while True:
        batch = reader.poll()
        numbers += [int(log.topics[0], 16) for log in batch.logs]
        if batch.is_caught_up:
            break
    assert numbers == [1, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"address": OTHER},
        {"blockNumber": "0xffff"},
        {"blockHash": "0x" + "11" * 32},
        {"blockHash": None},
        {"removed": True},
        {"topics": ["0x"]},
        {"data": None},
    ],
)
def test_logs_that_do_not_fit_are_refused(chain: Anvil, peer: Callable[..., Peer], changes: dict[str, Any]) -> None:
    """A node that lies about addresses or blocks, or answers from two versions of the chain."""

    def forward(request: dict[str, Any]) -> Reply:
        body = json.loads(request["body"])
        answer: Any = Http(chain.url).json("POST", "", body=body)
        if isinstance(body, dict) and body["method"] == "eth_getLogs":
            answer["result"] = [{**log, **changes} for log in answer["result"]]
        return Reply(body=json.dumps(answer).encode())

    emit(chain, 1)
    reader = EventReader(JsonRpc(peer(forward).url), [EMITTER])
    with pytest.raises((DecodeError, UnavailableError)):
        reader.poll()
    assert reader.cursor == Cursor(0)


def test_a_dead_node_is_unavailable(chain: Anvil) -> None:
    reader = EventReader(chain.rpc, [EMITTER])
    chain.kill()
    with pytest.raises(UnavailableError):
        reader.poll()


def test_follows_somebody() -> None:
    with running_anvil() as node, pytest.raises(InputError):
        EventReader(node.rpc, [])


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"next_block": 1},
        {"next_block": -1, "recent": []},
        {"next_block": 1, "recent": [[1]]},
        {"next_block": 1, "recent": [[1, "0x"]]},
    ],
)
def test_malformed_cursors_are_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        parse_cursor(value)
