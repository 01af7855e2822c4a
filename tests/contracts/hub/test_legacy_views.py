"""The unwrapped views that iExec's Java services read: the same values as the structs."""

from __future__ import annotations

from eth_abi.abi import decode
from tests.contracts.hub.chain import CATEGORY_SECONDS, Chain, call, calldata, now
from tests.contracts.hub.interface import CONTRIBUTION, DEAL, FUNCTIONS
from tests.contracts.hub.test_tasks import contribute, start, view_task


def legacy(chain: Chain, signature: str, *arguments: object) -> tuple[object, ...]:
    kinds = FUNCTIONS[signature][1:-1].split(",")
    return decode(kinds, call(chain.hub, calldata(signature, *arguments)))


def test_legacy_views(chain: Chain) -> None:
    chain.fund(chain.requester, 1000)
    chain.fund(chain.pool_owner, 1000)
    task = start(chain, app_price=3, dataset_price=5, workerpool_price=100, trust=1)
    matched = now()
    contribute(chain, task)
    seen = view_task(chain, task)
    deal = chain.view("viewDeal(bytes32)", DEAL, seen["dealid"])
    assert legacy(chain, "viewDealABILegacy_pt1(bytes32)", seen["dealid"]) == (*deal[0], *deal[1], *deal[2])
    second = (deal[3], deal[5], deal[6], deal[7], deal[8], deal[9])
    assert legacy(chain, "viewDealABILegacy_pt2(bytes32)", seen["dealid"]) == second
    assert legacy(chain, "viewConfigABILegacy(bytes32)", seen["dealid"]) == (0, matched, 0, 1, 30, 1)
    whole = list(seen.values())
    assert legacy(chain, "viewTaskABILegacy(bytes32)", task) == (*whole[:11], seen["results"])
    worker = chain.worker.address
    contribution = chain.view("viewContribution(bytes32,address)", CONTRIBUTION, task, worker)
    assert legacy(chain, "viewContributionABILegacy(bytes32,address)", task, worker) == contribution[:4]
    assert legacy(chain, "viewCategoryABILegacy(uint256)", 0) == ("XS", "category XS", CATEGORY_SECONDS)
    assert legacy(chain, "viewAccountABILegacy(address)", chain.requester.address) == (892, 0)
