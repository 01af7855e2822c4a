"""JSON-RPC against a real node, and against nodes that misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.anvil import CHAIN_ID, Anvil
from tests.support.http import Peer, Reply

from cloister.chain.rpc import BATCH_SIZE, JsonRpc, RpcError, TransactionReverted, check_chain, parse_quantity
from cloister.errors import CloisterError, DecodeError, RemoteError, UnavailableError
from cloister.protocol.codec import Address

NOBODY = Address("0x" + "66" * 20)


def test_reads_the_chain(anvil: Anvil) -> None:
    rpc = anvil.rpc
    assert rpc.chain_id == CHAIN_ID
    anvil.mine()
    head = rpc.head()
    assert rpc.block(head.number) == head
    before = rpc.block(head.number - 1)
    assert before is not None
    assert before.hash == head.parent
    assert rpc.block(10**9) is None
    assert rpc.balance(NOBODY, block="latest") == 0
    assert rpc.code(NOBODY, block="latest") == b""
    assert rpc.transaction_count(NOBODY, block=head.number) == 0


def test_long_batches_are_cut(anvil: Anvil) -> None:
    requests: list[tuple[str, list[object]]] = [("eth_getBlockByNumber", [hex(0), False])] * (BATCH_SIZE + 5)
    assert len(anvil.rpc.batch(requests)) == BATCH_SIZE + 5
    assert anvil.rpc.batch([]) == []


def test_the_first_error_of_a_batch_is_raised(anvil: Anvil) -> None:
    requests: list[tuple[str, list[object]]] = [("eth_blockNumber", []), ("no_such_method", [])]
    with pytest.raises(RpcError):
        anvil.rpc.batch(requests)
    good, bad = anvil.rpc.try_batch(requests)
    assert parse_quantity(good) >= 0
    assert isinstance(bad, RpcError)


def test_another_chain_is_refused(anvil: Anvil) -> None:
    check_chain(anvil.rpc, CHAIN_ID)
    with pytest.raises(RemoteError, match="serves chain"):
        check_chain(anvil.rpc, 1)


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        JsonRpc("http://127.0.0.1:9").block_number()


def echo(**members: Any) -> Callable[[dict[str, Any]], Reply]:
    """A node that answers every request with these members beside its id."""

    def answer(request: dict[str, Any]) -> Reply:
        body = json.loads(request["body"])
        answers = [
            {"jsonrpc": "2.0", "id": item["id"], **members} for item in (body if isinstance(body, list) else [body])
        ]
        return Reply(body=json.dumps(answers if isinstance(body, list) else answers[0]).encode())

    return answer


REASON = "0x08c379a0" + "20".rjust(64, "0") + "02".rjust(64, "0") + "6e6f".ljust(64, "0")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": 3, "message": "execution reverted", "data": REASON}, "no"),
        ({"code": -32000, "message": "execution reverted", "data": {"data": REASON}}, "no"),
        ({"code": -32015, "message": "VM execution error: Reverted", "data": {"result": REASON}}, "no"),
        ({"code": -32000, "message": "execution reverted: no"}, "no"),
        ({"code": 3, "message": "execution reverted", "data": "0x"}, ""),
        ({"code": 3, "message": "execution reverted", "data": "0xzz"}, ""),
    ],
)
def test_reverts_are_told_from_failures(peer: Callable[..., Peer], error: dict[str, Any], reason: str) -> None:
    rpc = JsonRpc(peer(echo(error=error)).url)
    with pytest.raises(TransactionReverted) as caught:
        rpc.call("eth_call", {}, "latest")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"{}"),
        Reply(body=b"[]"),
        Reply(body=b"null"),
        Reply(body=b'{"jsonrpc":"2.0","id":99999,"result":"0x1"}'),
        Reply(body=b"<html>"),
        Reply(body=b"\xff\xfe"),
        Reply(status=302, headers={"location": "http://127.0.0.1:9/"}),
        Reply(status=500),
        Reply(status=200, headers={"content-type": "text/html"}, body=b"{}"),
    ],
)
def test_nodes_that_misbehave_are_at_fault(peer: Callable[..., Peer], reply: Reply) -> None:
    rpc = JsonRpc(peer(lambda _: reply).url)
    for ask in (rpc.block_number, rpc.head, lambda: rpc.batch([("eth_chainId", [])])):
        with pytest.raises(CloisterError) as caught:
            ask()
        assert isinstance(caught.value, RemoteError | UnavailableError)


@pytest.mark.parametrize("value", [None, 5, "", "0x", "5", "0x" + "f" * 65, "0xg", {"a": 1}, True])
def test_malformed_numbers_are_refused(peer: Callable[..., Peer], value: object) -> None:
    rpc = JsonRpc(peer(echo(result=value)).url)
    with pytest.raises(DecodeError):
        rpc.block_number()


def test_a_key_in_the_url_is_not_told() -> None:
    rpc = JsonRpc("http://127.0.0.1:9/v2/sesame")
    with pytest.raises(UnavailableError) as caught:
        rpc.block_number()
    assert "sesame" not in f"{rpc!r} {caught.value.message} {caught.value.hint}"
