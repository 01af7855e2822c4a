"""The token of development networks."""

from __future__ import annotations

import boa
from tests.contracts.conftest import Suite

ZERO = "0x" + "00" * 20
SUPPLY = 87_000_000 * 10**9

SPENDER = """
# pragma version 0.4.3
interface Token:
    def transferFrom(_from: address, _to: address, _value: uint256) -> bool: nonpayable

seen: public(Bytes[24576])
refuse: public(bool)

@external
def set_refuse():
    self.refuse = True

@external
def receiveApproval(_from: address, _value: uint256, _token: address, _extraData: Bytes[24576]) -> bool:
    assert not self.refuse, "spender refuses"
    self.seen = _extraData
    return extcall Token(_token).transferFrom(_from, self, _value)
"""


def test_facts(suite: Suite) -> None:
    rlc = suite.rlc
    assert (rlc.name(), rlc.symbol(), rlc.decimals()) == ("iEx.ec Network Token", "RLC", 9)
    assert rlc.totalSupply() == SUPPLY
    assert rlc.balanceOf(suite.deployer) == SUPPLY


def test_transfer(suite: Suite, buyer: str) -> None:
    assert suite.rlc.transfer(buyer, 5)
    (log,) = suite.rlc.get_logs()
    assert (log.sender, log.to, log.value) == (suite.deployer, buyer, 5)
    assert (suite.rlc.balanceOf(buyer), suite.rlc.balanceOf(suite.deployer)) == (5, SUPPLY - 5)
    with boa.env.prank(buyer):
        with boa.reverts("ERC20: transfer amount exceeds balance"):
            suite.rlc.transfer(suite.deployer, 6)
        with boa.reverts("ERC20: transfer to the zero address"):
            suite.rlc.transfer(ZERO, 1)
        assert suite.rlc.transfer(buyer, 5)
    assert suite.rlc.balanceOf(buyer) == 5


def test_allowance_is_used_up(suite: Suite, data_owner: str, buyer: str) -> None:
    assert suite.rlc.approve(buyer, 2**256 - 1)
    (log,) = suite.rlc.get_logs()
    assert (log.owner, log.spender, log.value) == (suite.deployer, buyer, 2**256 - 1)
    suite.rlc.approve(buyer, 10)
    with boa.env.prank(buyer):
        assert suite.rlc.transferFrom(suite.deployer, data_owner, 7)
        assert suite.rlc.allowance(suite.deployer, buyer) == 3
        with boa.reverts("ERC20: insufficient allowance"):
            suite.rlc.transferFrom(suite.deployer, data_owner, 4)
        with boa.reverts("ERC20: transfer to the zero address"):
            suite.rlc.transferFrom(suite.deployer, ZERO, 1)
    with boa.reverts("ERC20: approve to the zero address"):
        suite.rlc.approve(ZERO, 1)
    with boa.env.prank(data_owner):
        suite.rlc.approve(buyer, 100)
    with boa.env.prank(buyer), boa.reverts("ERC20: transfer amount exceeds balance"):
        suite.rlc.transferFrom(data_owner, buyer, 8)


def test_approve_and_call(suite: Suite) -> None:
    spender = boa.loads(SPENDER)
    for data in (b"", b"\x01" * 24576):
        suite.rlc.approveAndCall(spender.address, 9, data)
        assert [type(log).__name__ for log in suite.rlc.get_logs()] == ["Approval", "Transfer"]
        assert spender.seen() == data
    assert suite.rlc.balanceOf(spender.address) == 18
    assert suite.rlc.allowance(suite.deployer, spender.address) == 0
    spender.set_refuse()
    with boa.reverts("spender refuses"):
        suite.rlc.approveAndCall(spender.address, 9, b"")
    assert suite.rlc.allowance(suite.deployer, spender.address) == 0


def test_approve_and_call_needs_a_contract(suite: Suite, buyer: str) -> None:
    with boa.reverts():
        suite.rlc.approveAndCall(buyer, 9, b"")
    assert suite.rlc.allowance(suite.deployer, buyer) == 0
