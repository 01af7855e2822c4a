"""ERC-721 of the registries: every external, every refusal, and the books against a plain list."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.contracts.conftest import Suite

ZERO = "0x" + "00" * 20

RECEIVER = """
# pragma version 0.4.3
answer: public(bytes4)
reason: public(String[64])
seen: public(Bytes[4096])
operator: public(address)

@deploy
def __init__(answer: bytes4, reason: String[64]):
    self.answer = answer
    self.reason = reason

@external
def onERC721Received(_operator: address, _from: address, _id: uint256, data: Bytes[4096]) -> bytes4:
    if len(self.reason) != 0:
        raise self.reason
    self.seen = data
    self.operator = _operator
    return self.answer
"""


def mint(suite: Suite, owner: str, number: int = 0) -> int:
    return int(suite.datasets.createDataset(owner, f"data {number}", b"/ipfs/x", b"\x01" * 32), 16)


def test_mint_is_recorded_and_logged(suite: Suite, data_owner: str) -> None:
    token = mint(suite, data_owner)
    logs = suite.datasets.get_logs()
    assert [type(log).__name__ for log in logs] == ["Transfer"]
    assert (logs[0].sender, logs[0].to, logs[0].tokenId) == (ZERO, data_owner, token)
    assert suite.datasets.ownerOf(token) == data_owner
    assert suite.datasets.balanceOf(data_owner) == 1
    assert suite.datasets.totalSupply() == 1
    assert suite.datasets.tokenByIndex(0) == token
    assert suite.datasets.tokenOfOwnerByIndex(data_owner, 0) == token
    assert suite.datasets.getApproved(token) == ZERO


def test_mint_to_nobody_is_refused(suite: Suite) -> None:
    with boa.reverts("ERC721: mint to the zero address"):
        mint(suite, ZERO)


def test_questions_without_an_answer_are_refused(suite: Suite, data_owner: str) -> None:
    mint(suite, data_owner)
    with boa.reverts("ERC721: address zero is not a valid owner"):
        suite.datasets.balanceOf(ZERO)
    for question in (suite.datasets.ownerOf, suite.datasets.getApproved, suite.datasets.tokenURI):
        with boa.reverts("ERC721: invalid token ID"):
            question(1)
    for index in (1, 2**32 - 1, 2**256 - 1):
        with boa.reverts("ERC721Enumerable: global index out of bounds"):
            suite.datasets.tokenByIndex(index)
        with boa.reverts("ERC721Enumerable: owner index out of bounds"):
            suite.datasets.tokenOfOwnerByIndex(data_owner, index)
    with boa.reverts("ERC721Enumerable: owner index out of bounds"):
        suite.datasets.tokenOfOwnerByIndex(ZERO, 0)


def test_interfaces(suite: Suite) -> None:
    for interface in ("01ffc9a7", "80ac58cd", "5b5e139f", "780e9d63"):
        assert suite.datasets.supportsInterface(bytes.fromhex(interface))
    for interface in ("ffffffff", "00000000", "150b7a02"):
        assert not suite.datasets.supportsInterface(bytes.fromhex(interface))


def test_transfer_by_owner(suite: Suite, data_owner: str, buyer: str) -> None:
    token = mint(suite, data_owner)
    with boa.env.prank(data_owner):
        suite.datasets.transferFrom(data_owner, buyer, token)
    (log,) = suite.datasets.get_logs()
    assert (log.sender, log.to, log.tokenId) == (data_owner, buyer, token)
    assert suite.datasets.ownerOf(token) == buyer
    assert (suite.datasets.balanceOf(data_owner), suite.datasets.balanceOf(buyer)) == (0, 1)
    assert suite.datasets.tokenOfOwnerByIndex(buyer, 0) == token


def test_transfer_to_oneself_changes_nothing(suite: Suite, data_owner: str) -> None:
    tokens = [mint(suite, data_owner, number) for number in range(3)]
    with boa.env.prank(data_owner):
        suite.datasets.transferFrom(data_owner, data_owner, tokens[0])
    assert suite.datasets.balanceOf(data_owner) == 3
    assert {suite.datasets.tokenOfOwnerByIndex(data_owner, index) for index in range(3)} == set(tokens)


def test_transfer_refusals(suite: Suite, data_owner: str, buyer: str, attacker: str) -> None:
    token = mint(suite, data_owner)
    with boa.env.prank(attacker), boa.reverts("ERC721: caller is not token owner or approved"):
        suite.datasets.transferFrom(data_owner, attacker, token)
    with boa.env.prank(data_owner):
        with boa.reverts("ERC721: transfer from incorrect owner"):
            suite.datasets.transferFrom(attacker, buyer, token)
        with boa.reverts("ERC721: transfer to the zero address"):
            suite.datasets.transferFrom(data_owner, ZERO, token)
        with boa.reverts("ERC721: invalid token ID"):
            suite.datasets.transferFrom(data_owner, buyer, token ^ 1)


def test_approval_moves_one_token_once(suite: Suite, data_owner: str, buyer: str, attacker: str) -> None:
    token, other = mint(suite, data_owner, 1), mint(suite, data_owner, 2)
    with boa.env.prank(attacker), boa.reverts("ERC721: approve caller is not token owner or approved for all"):
        suite.datasets.approve(attacker, token)
    with boa.env.prank(data_owner):
        with boa.reverts("ERC721: approval to current owner"):
            suite.datasets.approve(data_owner, token)
        suite.datasets.approve(buyer, token)
        (log,) = suite.datasets.get_logs()
    assert (log.owner, log.approved, log.tokenId) == (data_owner, buyer, token)
    assert suite.datasets.getApproved(token) == buyer
    with boa.env.prank(buyer):
        with boa.reverts("ERC721: caller is not token owner or approved"):
            suite.datasets.transferFrom(data_owner, buyer, other)
        suite.datasets.transferFrom(data_owner, attacker, token)
        assert suite.datasets.getApproved(token) == ZERO
        with boa.reverts("ERC721: caller is not token owner or approved"):
            suite.datasets.transferFrom(attacker, buyer, token)


def test_operator_moves_all_until_dismissed(suite: Suite, data_owner: str, buyer: str) -> None:
    tokens = [mint(suite, data_owner, number) for number in range(2)]
    with boa.env.prank(data_owner):
        with boa.reverts("ERC721: approve to caller"):
            suite.datasets.setApprovalForAll(data_owner, True)
        suite.datasets.setApprovalForAll(buyer, True)
        (log,) = suite.datasets.get_logs()
    assert (log.owner, log.operator, log.approved) == (data_owner, buyer, True)
    assert suite.datasets.isApprovedForAll(data_owner, buyer)
    with boa.env.prank(buyer):
        suite.datasets.approve(buyer, tokens[1])
        suite.datasets.transferFrom(data_owner, buyer, tokens[0])
    with boa.env.prank(data_owner):
        suite.datasets.approve(ZERO, tokens[1])
        suite.datasets.setApprovalForAll(buyer, False)
    with boa.env.prank(buyer), boa.reverts("ERC721: caller is not token owner or approved"):
        suite.datasets.transferFrom(data_owner, buyer, tokens[1])


@pytest.mark.parametrize("data", [None, b"", b"hello", b"\xff" * 4096])
def test_safe_transfer_asks_a_receiving_contract(suite: Suite, data_owner: str, data: bytes | None) -> None:
    token = mint(suite, data_owner)
    receiver = boa.loads(RECEIVER, bytes.fromhex("150b7a02"), "")
    arguments: list[Any] = [data_owner, receiver.address, token] + ([] if data is None else [data])
    with boa.env.prank(data_owner):
        suite.datasets.safeTransferFrom(*arguments)
    assert suite.datasets.ownerOf(token) == receiver.address
    assert receiver.seen() == (data or b"")
    assert receiver.operator() == data_owner


def test_safe_transfer_to_an_account_asks_nobody(suite: Suite, data_owner: str, buyer: str) -> None:
    token = mint(suite, data_owner)
    with boa.env.prank(data_owner):
        suite.datasets.safeTransferFrom(data_owner, buyer, token)
    assert suite.datasets.ownerOf(token) == buyer


def test_safe_transfer_is_undone_when_the_receiver_does_not_agree(suite: Suite, data_owner: str) -> None:
    token = mint(suite, data_owner)
    wrong = boa.loads(RECEIVER, bytes.fromhex("deadbeef"), "")
    refusing = boa.loads(RECEIVER, bytes.fromhex("150b7a02"), "not today")
    with boa.env.prank(data_owner):
        for deaf in (wrong.address, suite.rlc.address):
            with boa.reverts("ERC721: transfer to non ERC721Receiver implementer"):
                suite.datasets.safeTransferFrom(data_owner, deaf, token)
        with boa.reverts("not today"):
            suite.datasets.safeTransferFrom(data_owner, refusing.address, token)
        with boa.reverts():
            suite.datasets.safeTransferFrom(data_owner, wrong.address, token, b"\x00" * 4097)
    assert suite.datasets.ownerOf(token) == data_owner


class Books(RuleBasedStateMachine):
    """Minting and moving against a plain model: three holders, lists that cross the eight lanes of a word."""

    suite: Suite

    def __init__(self) -> None:
        super().__init__()
        self.holders = [boa.env.generate_address(f"holder {number}") for number in range(3)]
        self.owners: dict[int, str] = {}
        self.approvals: dict[int, str] = {}

    @rule(holder=st.integers(0, 2), count=st.integers(1, 9))
    def mint(self, holder: int, count: int) -> None:
        for _ in range(count):
            self.owners[mint(self.suite, self.holders[holder], len(self.owners))] = self.holders[holder]

    @rule(place=st.integers(0, 2**16), to=st.integers(0, 2))
    def transfer(self, place: int, to: int) -> None:
        if not self.owners:
            return
        token = list(self.owners)[place % len(self.owners)]
        with boa.env.prank(self.owners[token]):
            self.suite.datasets.transferFrom(self.owners[token], self.holders[to], token)
        self.owners[token] = self.holders[to]
        self.approvals.pop(token, None)

    @rule(place=st.integers(0, 2**16), to=st.integers(0, 2))
    def approve(self, place: int, to: int) -> None:
        if not self.owners:
            return
        token = list(self.owners)[place % len(self.owners)]
        with boa.env.prank(self.owners[token]):
            if self.owners[token] == self.holders[to]:
                with boa.reverts("ERC721: approval to current owner"):
                    self.suite.datasets.approve(self.holders[to], token)
                return
            self.suite.datasets.approve(self.holders[to], token)
        self.approvals[token] = self.holders[to]

    @invariant()
    def books_agree(self) -> None:
        datasets = self.suite.datasets
        assert datasets.totalSupply() == len(self.owners)
        assert [datasets.tokenByIndex(index) for index in range(len(self.owners))] == list(self.owners)
        for holder in self.holders:
            expected = {token for token, owner in self.owners.items() if owner == holder}
            assert datasets.balanceOf(holder) == len(expected)
            listed = [datasets.tokenOfOwnerByIndex(holder, index) for index in range(len(expected))]
            assert len(set(listed)) == len(listed)
            assert set(listed) == expected
        for token, owner in self.owners.items():
            assert datasets.ownerOf(token) == owner
            assert datasets.getApproved(token) == self.approvals.get(token, ZERO)


def test_books_agree_with_a_plain_model(deployed: Suite) -> None:
    class Machine(Books):
        suite = deployed

        def __init__(self) -> None:
            self.anchor = boa.env.anchor()
            self.anchor.__enter__()
            super().__init__()

        def teardown(self) -> None:
            self.anchor.__exit__(None, None, None)

    run_state_machine_as_test(Machine, settings=settings(max_examples=8, stateful_step_count=10, deadline=None))
