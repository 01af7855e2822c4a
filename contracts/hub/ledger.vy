#pragma version 0.4.3
"""
@title Ledger
@license Apache-2.0
@notice Accounts of staked RLC: free and locked amounts, and the escrow's four moves.
@dev An account is one word, stake (128) | locked (128). What is locked stands at the account as `locked` and at the hub as
     balance: `escrow` holds the hub's part (low half) and what the kitty holds locked (high half), because a settlement
     touches both. No amount reaches 2**80: `_mint` bounds the supply, and every amount here is covered by it.

     The escrow's bit 127 is always set, so that its word never becomes zero: the first deal after an idle moment costs no
     fresh word, and a gas estimate made while a task runs still holds when the task settles before the transaction is mined.

     The moves that only `_settle_escrow` completes say so; a settlement makes several and pays for one write.
"""

from . import state

uses: state

struct Account:
    stake: uint256
    locked: uint256


event Transfer:
    _from: indexed(address)
    to: indexed(address)
    value: uint256


event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256


event Lock:
    owner: address
    amount: uint256


event Unlock:
    owner: address
    amount: uint256


event Reward:
    owner: address
    amount: uint256
    ref: bytes32


event Seize:
    owner: address
    amount: uint256
    ref: bytes32


LOW: constant(uint256) = 2**128 - 1
SUPPLY_BOUND: constant(uint256) = 2**80
ESCROW_MARK: constant(uint256) = 2**127
ESCROW_LOW: constant(uint256) = 2**127 - 1
# The account in whose name the kitty is locked, seized and rewarded; the same on every network.
KITTY: constant(address) = 0x99c2268479b93fDe36232351229815DF80837e23
KITTY_RATIO: constant(uint256) = 10
KITTY_MIN: constant(uint256) = 10**9


@internal
@view
def _stake_of(account: address) -> uint256:
    stake: uint256 = state.accounts[account] & LOW
    if account == self:
        stake += state.escrow & ESCROW_LOW
    return stake


@internal
@view
def _locked_of(account: address) -> uint256:
    locked: uint256 = state.accounts[account] >> 128
    if account == KITTY:
        locked += state.escrow >> 128
    return locked


@internal
def _mint(account: address, amount: uint256):
    assert account != empty(address), "ERC20: mint to the zero address"
    supply: uint256 = state.total_supply + amount
    assert supply < SUPPLY_BOUND, "supply-bound-exceeded"
    state.total_supply = supply
    state.accounts[account] += amount
    log Transfer(_from=empty(address), to=account, value=amount)


@internal
def _burn(account: address, amount: uint256):
    assert account != empty(address), "ERC20: burn from the zero address"
    word: uint256 = state.accounts[account]
    assert word & LOW >= amount
    state.accounts[account] = unsafe_sub(word, amount)
    state.total_supply -= amount
    log Transfer(_from=account, to=empty(address), value=amount)


@internal
def _move(sender: address, receiver: address, amount: uint256):
    assert sender != empty(address), "ERC20: transfer from the zero address"
    assert receiver != empty(address), "ERC20: transfer to the zero address"
    word: uint256 = state.accounts[sender]
    assert word & LOW >= amount
    state.accounts[sender] = unsafe_sub(word, amount)
    state.accounts[receiver] += amount
    log Transfer(_from=sender, to=receiver, value=amount)


@internal
def _lock(account: address, amount: uint256):
    """
    @dev Move free money to locked. The hub's side is `_settle_escrow`.
    """
    assert account != empty(address), "IexecEscrow: Transfer from empty address"
    if amount != 0:
        word: uint256 = state.accounts[account]
        assert word & LOW >= amount, "IexecEscrow: Transfer amount exceeds balance"
        state.accounts[account] = unsafe_add(unsafe_sub(word, amount), amount << 128)
    log Transfer(_from=account, to=self, value=amount)
    log Lock(owner=account, amount=amount)


@internal
def _unlock(account: address, amount: uint256):
    """
    @dev Give locked money back. The hub's side is `_settle_escrow`.
    """
    if amount != 0:
        word: uint256 = state.accounts[account]
        state.accounts[account] = (word - (amount << 128)) + amount
    log Transfer(_from=self, to=account, value=amount)
    log Unlock(owner=account, amount=amount)


@internal
def _reward(account: address, amount: uint256, ref: bytes32):
    """
    @dev Pay out of what was seized. The hub's side is `_settle_escrow`.
    """
    assert account != empty(address), "IexecEscrow: Transfer to empty address"
    if amount != 0:
        state.accounts[account] += amount
    log Transfer(_from=self, to=account, value=amount)
    log Reward(owner=account, amount=amount, ref=ref)


@internal
def _seize(account: address, amount: uint256, ref: bytes32):
    """
    @dev Take locked money; it stays with the hub until it is paid out.
    """
    if amount != 0:
        state.accounts[account] -= amount << 128
    log Seize(owner=account, amount=amount, ref=ref)


@internal
def _settle_escrow(received: uint256, paid: uint256):
    """
    @dev Complete the hub's side of the moves before: `received` by `_lock`, `paid` by `_unlock` and `_reward`.
    """
    if received != paid:
        word: uint256 = state.escrow
        assert unsafe_add(word & ESCROW_LOW, received) >= paid, "IexecEscrow: Transfer amount exceeds balance"
        state.escrow = unsafe_sub(unsafe_add(word, received), paid)


@internal
def _seize_kitty_bonus(ref: bytes32) -> uint256:
    """
    @dev Take a workerpool's bonus out of the kitty: a tenth of it, at least 1 RLC, at most all. Zero and silent if it is empty.
    """
    word: uint256 = state.escrow
    kitty: uint256 = word >> 128
    if kitty == 0:
        return 0
    bonus: uint256 = min(max(kitty * KITTY_RATIO // 100, KITTY_MIN), kitty)
    state.escrow = unsafe_sub(word, bonus << 128)
    log Seize(owner=KITTY, amount=bonus, ref=ref)
    return bonus


@internal
def _reward_kitty(amount: uint256, ref: bytes32):
    """
    @dev Lock seized money for the kitty. It does not leave the hub, so there is no transfer.
    """
    if amount != 0:
        state.escrow += amount << 128
    log Reward(owner=KITTY, amount=amount, ref=ref)
    log Lock(owner=KITTY, amount=amount)
