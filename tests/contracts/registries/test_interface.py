"""Selectors, topics and the gas of creation."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak
from tests.contracts.appendix_a import DATAPROTECTOR_EVENTS, OTHER_FUNCTIONS, REGISTRY_FUNCTIONS
from tests.contracts.conftest import Suite, deploy_suite
from tests.contracts.hub.chain import transact
from vyper.compiler.output import build_abi_output

ERC721 = {
    "approve(address,uint256)",
    "balanceOf(address)",
    "getApproved(uint256)",
    "isApprovedForAll(address,address)",
    "name()",
    "ownerOf(uint256)",
    "safeTransferFrom(address,address,uint256)",
    "safeTransferFrom(address,address,uint256,bytes)",
    "setApprovalForAll(address,bool)",
    "supportsInterface(bytes4)",
    "symbol()",
    "tokenByIndex(uint256)",
    "tokenOfOwnerByIndex(address,uint256)",
    "tokenURI(uint256)",
    "totalSupply()",
    "transferFrom(address,address,uint256)",
}
COMMON = ERC721 | {
    "baseURI()",
    "initialize(address)",
    "initialized()",
    "isRegistered(address)",
    "master()",
    "owner()",
    "previous()",
    "renounceOwnership()",
    "resolve(address)",
    "setBaseURI(string)",
    "setName(address,string)",
    "transferOwnership(address)",
}
EXPECTED = {
    "apps": COMMON
    | {
        "createApp(address,string,string,bytes,bytes32,bytes)",
        "predictApp(address,string,string,bytes,bytes32,bytes)",
    },
    "datasets": COMMON
    | {"createDataset(address,string,bytes,bytes32)", "predictDataset(address,string,bytes,bytes32)"},
    "workerpools": COMMON
    | {
        "createWorkerpool(address,string)",
        "predictWorkerpool(address,string)",
        "setPolicy(uint256,uint256)",
    },
    "app_entry": {
        "m_appName()",
        "m_appType()",
        "m_appMultiaddr()",
        "m_appChecksum()",
        "m_appMREnclave()",
        "owner()",
        "registry()",
        "setName(address,string)",
    },
    "dataset_entry": {
        "m_datasetName()",
        "m_datasetMultiaddr()",
        "m_datasetChecksum()",
        "owner()",
        "registry()",
        "setName(address,string)",
    },
    "workerpool_entry": {
        "m_workerpoolDescription()",
        "m_workerStakeRatioPolicy()",
        "m_schedulerRewardRatioPolicy()",
        "changePolicy(uint256,uint256)",
        "owner()",
        "registry()",
        "setName(address,string)",
    },
    "dataprotector": {"createDatasetWithSchema(address,string,string,bytes,bytes32)", "datasetRegistry()"},
    "rlc": {
        "allowance(address,address)",
        "approve(address,uint256)",
        "approveAndCall(address,uint256,bytes)",
        "balanceOf(address)",
        "decimals()",
        "name()",
        "symbol()",
        "totalSupply()",
        "transfer(address,uint256)",
        "transferFrom(address,address,uint256)",
    },
}
TOPICS = {
    "Transfer": "Transfer(address,address,uint256)",
    "Approval": "Approval(address,address,uint256)",
    "ApprovalForAll": "ApprovalForAll(address,address,bool)",
    "OwnershipTransferred": "OwnershipTransferred(address,address)",
    "PolicyUpdate": "PolicyUpdate(uint256,uint256,uint256,uint256)",
    "DatasetSchema": "DatasetSchema(address,string)",
}


def interface(suite: Suite, name: str) -> list[dict[str, Any]]:
    return list(build_abi_output(getattr(suite, name).compiler_data))


def signature(entry: dict[str, Any]) -> str:
    return f"{entry['name']}({','.join(item['type'] for item in entry['inputs'])})"


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_functions_are_those_that_clients_call(suite: Suite, name: str) -> None:
    functions = {signature(entry) for entry in interface(suite, name) if entry["type"] == "function"}
    assert functions == EXPECTED[name]
    published = REGISTRY_FUNCTIONS | OTHER_FUNCTIONS
    checked = {
        function: published[function.split("(")[0]] for function in functions if function.split("(")[0] in published
    }
    for function, selector in checked.items():
        assert "0x" + keccak(text=function)[:4].hex() == selector
    if name in ("apps", "datasets", "workerpools"):
        assert len(checked) == 4
    if name == "dataprotector":
        assert len(checked) == 1


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_events_are_those_that_clients_decode(suite: Suite, name: str) -> None:
    events = [entry for entry in interface(suite, name) if entry["type"] == "event"]
    assert all(signature(entry) == TOPICS[entry["name"]] for entry in events)
    if name == "dataprotector":
        assert "0x" + keccak(text=signature(events[0])).hex() == DATAPROTECTOR_EVENTS["DatasetSchema"]
        assert [item["indexed"] for item in events[0]["inputs"]] == [True, False]
    if name in ("apps", "datasets", "workerpools"):
        (transfer,) = (entry for entry in events if entry["name"] == "Transfer")
        assert all(item["indexed"] for item in transfer["inputs"])


def gas(contract: Any, function: str, *arguments: Any, sender: str | None = None) -> int:
    """Gas of a whole transaction on cold state: base, calldata and execution."""
    payload = getattr(contract, function).prepare_calldata(*arguments)
    return transact(sender or boa.env.eoa, contract.address, payload).gas


MULTIADDR = bytes.fromhex("a503221220") + bytes(range(1, 33))
SCHEMA = '{"email":"string","profile":{"age":"f64","photo":"image/png"}}'
CHECKSUM = bytes(range(100, 132))
IMAGE = b"images.example/web3mail:0.1.0-tdx-0123456789abcdef"


def test_gas() -> None:
    """Budgets of the design, with fields as they are in practice and a first-time owner, the dearest case."""
    # Measuring settles the state for good, so it is done on a chain of its own.
    with boa.swap_env(boa.Env()):
        suite = deploy_suite()
        owners = [boa.env.generate_address() for _ in range(4)]
        registered = (owners[0], "my contact 1", SCHEMA, MULTIADDR, CHECKSUM)
        first = gas(suite.dataprotector, "createDatasetWithSchema", *registered)
        second = gas(suite.dataprotector, "createDatasetWithSchema", owners[0], "my contact 2", *registered[2:])
        app = gas(suite.apps, "createApp", owners[1], "web3mail-tdx", "DOCKER", IMAGE, CHECKSUM, b"")
        pool = gas(suite.workerpools, "createWorkerpool", owners[2], "my workerpool")
        resolved = gas(suite.workerpools, "resolve", suite.workerpools.predictWorkerpool(owners[2], "my workerpool"))
        token = suite.datasets.tokenByIndex(0)
        moved = gas(suite.datasets, "transferFrom", owners[0], owners[3], token, sender=owners[0])
    measured = {"first": first, "second": second, "app": app, "pool": pool, "resolve": resolved, "transfer": moved}
    budget = {
        "first": 175_000,
        "second": 155_000,
        "app": 170_000,
        "pool": 150_000,
        "resolve": 25_000,
        "transfer": 80_000,
    }
    assert {name: spent for name, spent in measured.items() if spent > budget[name]} == {}
