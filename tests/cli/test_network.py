"""``cloister network describe``: for people, for machines, and as a module for iExec's JavaScript packages."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.cli.conftest import Town

from cloister.protocol.networks import parse_network
from cloister.transport import Http


def test_every_url_and_address(town: Town) -> None:
    described = town.terminal.json("network", "describe")
    urls = described.pop("urls")
    network = parse_network(described)
    assert described == town.announced["network"]
    assert urls["rpc"] == network.rpc_url
    assert urls["poco_subgraph"] == f"{network.origin}/subgraphs/name/arbitrum-sepolia/poco-v5"
    answer = Http(urls["dataprotector_subgraph"]).json("POST", "", body={"query": "{ _meta { block { number } } }"})
    assert isinstance(answer, dict)
    assert answer["data"]["_meta"]["block"]["number"] > 0
    for_people = town.terminal.run("network", "describe").stdout
    for value in [*urls.values(), *described["contracts"].values(), network.workerpool, network.teebroker]:
        assert value in for_people


def test_configuration_for_javascript(town: Town, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    module = tmp_path / "network.mjs"
    module.write_text(town.terminal.run("network", "describe", "--js").stdout)
    program = f"import * as all from {json.dumps(module.as_uri())}; console.log(JSON.stringify(all))"
    done = subprocess.run(
        [node, "--input-type=module", "-e", program], capture_output=True, text=True, check=True, timeout=30
    )
    exported = json.loads(done.stdout)
    assert exported == town.terminal.json("network", "describe", "--js")
    contracts = town.announced["network"]["contracts"]
    assert exported["iexecOptions"]["hubAddress"] == contracts["hub"]
    assert exported["dataProtectorOptions"]["dataprotectorContractAddress"] == contracts["dataprotector"]
    assert exported["chainJson"]["chains"]["local"]["id"] == "421614"
