#pragma version 0.4.3
#pragma evm-version cancun
"""
@title Rlc
@license Apache-2.0
@notice The RLC token of development networks: an ERC-20 with nine decimals and `approveAndCall`.
@dev Networks with a token of their own never deploy it. The whole supply goes to the deployer, nothing is minted later.
"""

interface TokenSpender:
    def receiveApproval(_from: address, _value: uint256, _token: address, _extraData: Bytes[DATA_CAP]): nonpayable


event Transfer:
    sender: indexed(address)
    to: indexed(address)
    value: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256


DATA_CAP: constant(uint256) = 24576

name: public(constant(String[24])) = "iEx.ec Network Token"
symbol: public(constant(String[3])) = "RLC"
decimals: public(constant(uint8)) = 9
totalSupply: public(constant(uint256)) = 87_000_000 * 10**9
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])


@deploy
def __init__():
    self.balanceOf[msg.sender] = totalSupply
    log Transfer(sender=empty(address), to=msg.sender, value=totalSupply)


@external
def transfer(_to: address, _value: uint256) -> bool:
    """
    @notice Send tokens of the caller.
    """
    self._move(msg.sender, _to, _value)
    return True


@external
def transferFrom(_from: address, _to: address, _value: uint256) -> bool:
    """
    @notice Send tokens of an account that allowed the caller to.
    """
    allowed: uint256 = self.allowance[_from][msg.sender]
    assert _value <= allowed, "ERC20: insufficient allowance"
    self.allowance[_from][msg.sender] = allowed - _value
    self._move(_from, _to, _value)
    return True


@external
def approve(_spender: address, _value: uint256) -> bool:
    """
    @notice Allow an account to send tokens of the caller; replaces what it was allowed before.
    """
    self._approve(_spender, _value)
    return True


@external
def approveAndCall(_spender: address, _value: uint256, _extraData: Bytes[DATA_CAP]):
    """
    @notice Allow a contract to send tokens of the caller, and tell it in the same transaction.
    @param _extraData Handed on as it is, at most 24,576 bytes: enough for the call of a match with long parameters.
    """
    self._approve(_spender, _value)
    extcall TokenSpender(_spender).receiveApproval(msg.sender, _value, self, _extraData)


@internal
def _approve(spender: address, amount: uint256):
    assert spender != empty(address), "ERC20: approve to the zero address"
    self.allowance[msg.sender][spender] = amount
    log Approval(owner=msg.sender, spender=spender, value=amount)


@internal
def _move(sender: address, to: address, amount: uint256):
    assert to != empty(address), "ERC20: transfer to the zero address"
    held: uint256 = self.balanceOf[sender]
    assert amount <= held, "ERC20: transfer amount exceeds balance"
    self.balanceOf[sender] = held - amount
    self.balanceOf[to] += amount
    log Transfer(sender=sender, to=to, value=amount)
