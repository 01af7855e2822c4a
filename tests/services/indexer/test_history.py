"""Deals from match to result, refund and back, as they were at each block, though read in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.anvil import running_anvil
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.indexer_world import IndexerWorld

from cloister.chain.hub import ContributionAndResult
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.results import callback_digest, enclave_message, result_hash, result_seal
from cloister.protocol.tasks import task_id

RESULTS = b'{"storage":"ethereum","location":"0x"}'
CALLBACK = b"called back"
TASKS = """query ($deal: Bytes) { tasks(where: {deal: $deal}, orderBy: index, block: {number: BLOCK}) {
  index status consensus resultDigest results resultsCallback timestamp blockNumber
  contributions { id worker { id contributions { id } } status hash seal challenge weight } } }"""
SUCCESSFUL = """query checkSuccessfulTaskQuery($apps: [String!], $dataset: String!) {
  tasks(where: {resultsCallback_not: "0x", status: "COMPLETED", deal_: {dataset: $dataset, app_in: $apps}}) {
    resultsCallback } }"""


def test_results_refunds_and_the_past(tmp_path: Path) -> None:
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        bazaar = Bazaar(chain, "history")
        enclave = chain.account("enclave")
        deal, _ = bazaar.match(bazaar.orders(volume=2, callback=chain.account("callback").address))
        blocks = {"matched": chain.rpc.block_number()}
        done, given_up = task_id(deal, 0), task_id(deal, 1)
        chain.send(chain.hub.initialize(deal, 0), bazaar.worker)
        blocks["begun"] = chain.rpc.block_number()
        digest = callback_digest(CALLBACK)
        hashed, seal = result_hash(done, digest), result_seal(bazaar.worker.address, done, digest)
        message = scheduler_authorization(bazaar.worker.address, done, enclave.address)
        item = ContributionAndResult(
            done,
            digest,
            RESULTS,
            CALLBACK,
            enclave.address,
            enclave.sign_message(enclave_message(hashed, seal)),
            bazaar.pool_owner.sign_message(message),
        )
        chain.send(chain.hub.contribute_and_finalize(item), bazaar.worker)
        blocks["done"] = chain.rpc.block_number()
        chain.send(chain.hub.initialize(deal, 1), bazaar.worker)
        chain.rpc.call("evm_increaseTime", 10**6)
        node.mine(1)
        snapshot = chain.rpc.call("evm_snapshot")
        chain.send(chain.hub.claim(given_up), bazaar.worker)
        blocks["refunded"] = chain.rpc.block_number()

        world = IndexerWorld(chain, tmp_path)
        with world.serving():

            def tasks(at: str) -> list[dict[str, Any]]:
                query = TASKS.replace("BLOCK", str(blocks[at]))
                return list(world.data(query, {"deal": deal}, subgraph="poco-v5")["tasks"])

            assert tasks("matched") == []
            (begun,) = tasks("begun")
            assert (begun["status"], begun["consensus"], begun["results"]) == ("ACTIVE", None, None)
            assert begun["contributions"] == []
            (finished,) = tasks("done")
            (contribution,) = finished.pop("contributions")
            moment = chain.rpc.block(blocks["done"])
            assert moment is not None
            assert finished == {
                "index": "0",
                "status": "COMPLETED",
                "consensus": hashed,
                "resultDigest": digest,
                "results": "0x" + RESULTS.hex(),
                "resultsCallback": "0x" + CALLBACK.hex(),
                "timestamp": str(moment.timestamp),
                "blockNumber": str(blocks["done"]),
            }
            worker = bazaar.worker.address.lower()
            assert contribution == {
                "id": f"{done}-{worker}",
                "worker": {"id": worker, "contributions": [{"id": f"{done}-{worker}"}]},
                "status": "PROVED",
                "hash": hashed,
                "seal": seal,
                "challenge": enclave.address.lower(),
                "weight": "0",
            }
            assert [each["status"] for each in tasks("refunded")] == ["COMPLETED", "FAILLED"]
            variables = {"apps": [bazaar.app.lower()], "dataset": bazaar.dataset.lower()}
            found = {"tasks": [{"resultsCallback": "0x" + CALLBACK.hex()}]}
            assert world.data(SUCCESSFUL, variables, subgraph="poco-v5") == found
            for status in ("FAILLED", '"FAILLED"'):
                query = f"{{ tasks(where: {{status: {status}}}) {{ id }} }}"
                assert world.data(query, subgraph="poco-v5") == {"tasks": [{"id": given_up}]}

            # The refund is taken back by the chain: the task is open again.
            chain.rpc.call("evm_revert", snapshot)
            node.mine(3)
            blocks["now"] = chain.rpc.block_number()
            assert [each["status"] for each in tasks("now")] == ["COMPLETED", "ACTIVE"]


def test_an_owner_at_the_block_of_the_schema(tmp_path: Path) -> None:
    """Data that was sold before the indexer read of it belonged to the seller until then."""
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        seller, buyer = chain.account("seller"), chain.account("buyer")
        dataset = chain.make_dataset(seller)
        made = chain.rpc.block_number()
        chain.send(chain.datasets.transfer(seller.address, buyer.address, dataset), seller)
        world = IndexerWorld(chain, tmp_path)
        with world.serving():
            query = "{ protectedDatas(block: {number: BLOCK}) { owner { id datasets { id } } } }"
            mine = [{"id": dataset.lower()}]
            for block, owner in ((made, seller), (chain.rpc.block_number(), buyer)):
                (found,) = world.data(query.replace("BLOCK", str(block)))["protectedDatas"]
                assert found == {"owner": {"id": owner.address.lower(), "datasets": mine}}
