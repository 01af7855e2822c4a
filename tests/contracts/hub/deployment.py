"""The project's contracts and the doubles around them, compiled once and deployed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import boa
from tests.contracts.hub.actors import Actor
from tests.contracts.hub.chain import CATEGORY_SECONDS, CONTRACTS, Chain


@cache
def compiled(path: str) -> Any:
    """A contract of the project, compiled once."""
    return boa.load_partial(str(CONTRACTS / path))


@cache
def double(name: str) -> Any:
    """A contract that plays a part in tests."""
    return boa.load_partial(str(Path(__file__).with_name("doubles") / f"{name}.vy"))


def deploy_hub(rlc: Any, apps: Any, datasets: Any, workerpools: Any, former_hub: Any, at: str | None = None) -> Any:
    """The parts from last to first, then the hub over them."""
    parts = {"HubViews": compiled("HubViews.vy").deploy(apps, datasets, workerpools)}
    parts["HubTasks"] = compiled("HubTasks.vy").deploy(parts["HubViews"])
    parts["HubAccounts"] = compiled("HubAccounts.vy").deploy(rlc, former_hub, parts["HubTasks"])
    parts["HubOrders"] = compiled("HubOrders.vy").deploy(apps, datasets, workerpools, parts["HubAccounts"])
    parts["Hub"] = compiled("Hub.vy").deploy(apps, datasets, workerpools, parts["HubOrders"], override_address=at)
    return parts


def deploy_chain() -> Chain:
    """Token, registries, hub, one resource of each kind and two categories."""
    boa.env.evm.patch.chain_id = 421614
    rlc = compiled("Rlc.vy").deploy()
    registries = []
    for name in ("App", "Dataset", "Workerpool"):
        entry = compiled(f"registries/{name}.vy").deploy_as_blueprint()
        registries.append(compiled(f"registries/{name}Registry.vy").deploy(entry))
    apps, datasets, workerpools = registries
    parts = deploy_hub(rlc, apps, datasets, workerpools, double("FormerHub").deploy())
    owners = [Actor.named(name).address for name in ("app_owner", "data_owner", "pool_owner")]
    multiaddr = bytes.fromhex("a503221220") + bytes(32)
    chain = Chain(
        deployer=boa.env.eoa,
        hub=parts["Hub"].address,
        parts=parts,
        rlc=rlc,
        apps=apps,
        datasets=datasets,
        workerpools=workerpools,
        app=apps.createApp(owners[0], "app", "DOCKER", multiaddr, bytes(32), b""),
        dataset=datasets.createDataset(owners[1], "data", multiaddr, bytes(32)),
        workerpool=workerpools.createWorkerpool(owners[2], "pool"),
    )
    for name in ("XS", "S"):
        signature = "createCategory(string,string,uint256)"
        chain.send(chain.deployer, signature, name, f"category {name}", CATEGORY_SECONDS)
    return chain
