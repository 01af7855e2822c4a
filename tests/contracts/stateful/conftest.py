"""One hub with everything around it, deployed once; each run of the machine works on an anchor of it."""

from __future__ import annotations

import boa
import pytest
from tests.contracts.conftest import CONTRACTS, Suite
from tests.contracts.stateful.model import ZERO
from tests.contracts.stateful.test_poco import ACTORS
from tests.contracts.stateful.world import World

from cloister.protocol.codec import keccak256
from cloister.protocol.signatures import PrivateKey

PARTS = ("HubViews", "HubTasks", "HubAccounts", "HubOrders", "Hub")
"""The hub's parts, each handing on to the one before."""


FORMER_HUB = """
# pragma version 0.4.3
viewScore: public(HashMap[address, uint256])

@external
def set(worker: address, score: uint256):
    self.viewScore[worker] = score
"""


@pytest.fixture(scope="session")
def world(deployed: Suite) -> World:
    known = {
        "app_registry": deployed.apps.address,
        "dataset_registry": deployed.datasets.address,
        "workerpool_registry": deployed.workerpools.address,
        "token_": deployed.rlc.address,
        "former_hub": boa.loads(FORMER_HUB).address,
        "next_part": ZERO,
    }
    for part in PARTS:
        deployer = boa.load_partial(str(CONTRACTS / f"{part}.vy"))
        constructor = deployer.compiler_data.global_ctx.init_function
        arguments = [known[argument.name] for argument in constructor.arguments]
        known["next_part"] = deployer.deploy(*arguments).address
    return World(
        hub=known["next_part"],
        former_hub=known["former_hub"],
        rlc=deployed.rlc.address,
        apps=deployed.apps.address,
        datasets=deployed.datasets.address,
        workerpools=deployed.workerpools.address,
        owner=deployed.deployer,
        actors={name: PrivateKey(keccak256(name.encode())) for name in ACTORS},
        chain_id=boa.env.evm.patch.chain_id,
    )
