#pragma version 0.4.3
"""
@title Settlement
@license Apache-2.0
@notice Who is paid when a task ends, and from what.
"""

from . import deals
from . import ledger
from . import state

uses: ledger

@internal
@view
def _task_price(terms: deals.Terms) -> uint256:
    return unsafe_add(unsafe_add(terms.app_price, terms.dataset_price), terms.workerpool_price)


@internal
@view
def _workerpool_stake(terms: deals.Terms) -> uint256:
    """
    @dev What the workerpool's owner has at stake for one task.
    """
    return unsafe_div(unsafe_mul(terms.workerpool_price, deals.WORKERPOOL_STAKE_RATIO), 100)


@internal
def _pay_providers(task_id: bytes32, terms: deals.Terms) -> uint256:
    """
    @dev The first half of a success: the sponsor's money is taken, the owners of app and dataset are paid, the workerpool's
         stake is given back with its bonus from the kitty.
    @return What left the hub, for `ledger._settle_escrow`.
    """
    ledger._seize(terms.sponsor, self._task_price(terms), task_id)
    if terms.app_price != 0:
        ledger._reward(terms.app_owner, terms.app_price, task_id)
    if terms.dataset_price != 0:
        ledger._reward(terms.dataset_owner, terms.dataset_price, task_id)
    stake: uint256 = self._workerpool_stake(terms)
    ledger._unlock(terms.workerpool_owner, stake)
    bonus: uint256 = ledger._seize_kitty_bonus(task_id)
    if bonus != 0:
        ledger._reward(terms.workerpool_owner, bonus, task_id)
    return stake + bonus + terms.app_price + terms.dataset_price


@internal
def _pay_single_worker(task_id: bytes32, terms: deals.Terms, worker: address):
    """
    @dev A success with one worker that staked nothing.
    """
    paid: uint256 = self._pay_providers(task_id, terms)
    worker_reward: uint256 = unsafe_div(unsafe_mul(terms.workerpool_price, 100 - terms.reward_ratio), 100)
    ledger._reward(worker, worker_reward, task_id)
    ledger._reward(terms.workerpool_owner, unsafe_sub(terms.workerpool_price, worker_reward), task_id)
    ledger._settle_escrow(0, paid + terms.workerpool_price)


@internal
def _refund(task_id: bytes32, terms: deals.Terms):
    """
    @dev A failure: the sponsor gets the task's price back, the workerpool's stake goes to the kitty.
    """
    price: uint256 = self._task_price(terms)
    stake: uint256 = self._workerpool_stake(terms)
    ledger._unlock(terms.sponsor, price)
    ledger._seize(terms.workerpool_owner, stake, task_id)
    ledger._reward_kitty(stake, task_id)
    ledger._settle_escrow(0, price)
