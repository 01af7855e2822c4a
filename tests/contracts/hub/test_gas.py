"""Gas of the calls that every task pays for, as whole transactions on cold state. Gas is exact, so the budgets are asserted."""

from __future__ import annotations

import pytest
from tests.contracts.hub.actors import Actor, task_id
from tests.contracts.hub.chain import MATCH, Chain, calldata, transact
from tests.contracts.hub.test_tasks import FINALIZE, FINALIZE_ARRAY, INITIALIZE, arguments

PRICED = {"app_price": 10**9, "dataset_price": 2 * 10**9, "workerpool_price": 3 * 10**9}
ANYONE = Actor.named("anyone").address
# Measured, with half a percent of room.
MATCH_BUDGET = {"free": 275_000, "priced": 291_000}
FINALIZE_BUDGET = {"free": 154_000, "priced": 240_000}


def fund(chain: Chain) -> None:
    chain.fund(chain.requester, 10**12)
    chain.fund(chain.pool_owner, 10**12)


@pytest.mark.parametrize("prices", ["free", "priced"])
def test_one_task(chain: Chain, prices: str) -> None:
    """Nobody here had a balance before: the priced task pays for three new accounts."""
    fund(chain)
    offers = chain.signed(chain.orders(**(PRICED if prices == "priced" else {})))
    match = transact(ANYONE, chain.hub, calldata("matchOrders" + MATCH, *offers.as_tuples()))
    initialize = transact(ANYONE, chain.hub, calldata(INITIALIZE, match.output, 0))
    finalize = chain.send(chain.worker, FINALIZE, *arguments(chain, task_id(match.output)).values())
    print(prices, match.gas, initialize.gas, finalize.gas, match.gas + initialize.gas + finalize.gas)
    assert match.gas <= MATCH_BUDGET[prices]
    assert initialize.gas <= 50_500
    assert finalize.gas <= FINALIZE_BUDGET[prices]
    assert match.gas + initialize.gas + finalize.gas <= 580_000


@pytest.mark.parametrize("prices", ["free", "priced"])
def test_twenty_tasks_of_one_deal(chain: Chain, prices: str) -> None:
    fund(chain)
    offers = chain.signed(chain.orders(volume=20, **(PRICED if prices == "priced" else {})))
    match = transact(ANYONE, chain.hub, calldata("matchOrders" + MATCH, *offers.as_tuples()))
    deal = match.output
    initialize = chain.send(ANYONE, "initializeArray(bytes32[],uint256[])", [deal] * 20, list(range(20)))
    rows = [arguments(chain, task_id(deal, i)).values() for i in range(20)]
    finalize = chain.send(chain.worker, FINALIZE_ARRAY, *(list(column) for column in zip(*rows, strict=True)))
    total = match.gas + initialize.gas + finalize.gas
    print(prices, match.gas, initialize.gas, finalize.gas, total // 20)
    assert total // 20 <= 180_000


def test_revocation(chain: Chain) -> None:
    order = chain.orders().dataset.signed(chain.data_owner, chain.domain)
    signature = f"manageDatasetOrder(({order.abi()},uint8,bytes))"
    close = chain.send(chain.data_owner, signature, (order.as_tuple(), 1, b""))
    print(close.gas)
    assert close.gas <= 60_000
