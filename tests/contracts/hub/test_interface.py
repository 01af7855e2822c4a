"""The hub is one contract to its callers: their ABI, within the size limit, on one storage."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import boa
import pytest
from eth_hash.auto import keccak
from tests.contracts.appendix_a import HUB_ERRORS, HUB_EVENTS, HUB_FUNCTIONS
from tests.contracts.hub.actors import Actor
from tests.contracts.hub.chain import CONTRACTS, Chain, Reverted, selector, transact
from tests.contracts.hub.interface import ADDITIONS, EVENTS, FUNCTIONS, OWN_EVENTS

PARTS = ("Hub", "HubOrders", "HubAccounts", "HubTasks", "HubViews")
SIZE_LIMIT = 24_576


def canonical(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return f"({','.join(canonical(part) for part in entry['components'])})" + kind[5:]
    return kind


def abi(chain: Chain, kind: str) -> list[dict[str, Any]]:
    return [entry for part in chain.parts.values() for entry in part.abi if entry["type"] == kind]


def test_functions_are_those_of_poco_and_ours(chain: Chain) -> None:
    built = {}
    for entry in abi(chain, "function"):
        signature = f"{entry['name']}({','.join(canonical(item) for item in entry['inputs'])})"
        assert signature not in built, f"{signature} is in two parts"
        built[signature] = f"({','.join(canonical(item) for item in entry['outputs'])})"
    assert built == FUNCTIONS | ADDITIONS


def test_events_are_those_of_poco_and_ours(chain: Chain) -> None:
    built = {}
    for entry in abi(chain, "event"):
        types = [canonical(item) + "*" * item["indexed"] for item in entry["inputs"]]
        assert built.setdefault(entry["name"], ",".join(types)) == ",".join(types)
    assert built == EVENTS | OWN_EVENTS


@pytest.mark.parametrize(("name", "expected"), HUB_FUNCTIONS.items())
def test_selectors(name: str, expected: str) -> None:
    signatures = [each for each in FUNCTIONS if each == name or each.startswith(f"{name}(")]
    assert [f"0x{selector(each).hex()}" for each in signatures] == [expected]


@pytest.mark.parametrize(("name", "expected"), HUB_EVENTS.items())
def test_topics(name: str, expected: str) -> None:
    assert f"0x{keccak(f'{name}({EVENTS[name]})'.replace('*', '').encode()).hex()}" == expected


@pytest.mark.parametrize(("signature", "expected"), HUB_ERRORS.items())
def test_errors(signature: str, expected: str) -> None:
    assert f"0x{selector(signature).hex()}" == expected


@pytest.mark.parametrize("name", PARTS)
def test_size_limit(chain: Chain, name: str) -> None:
    assert 0 < len(boa.env.get_code(chain.parts[name].address)) <= SIZE_LIMIT


def test_parts_agree_on_storage() -> None:
    layouts = []
    for name in PARTS:
        command = [sys.executable, "-m", "vyper.cli.vyper_compile", "-f", "layout", f"{name}.vy"]
        output = subprocess.run(command, cwd=CONTRACTS, check=True, capture_output=True, timeout=60).stdout
        layout = json.loads(output)
        layouts.append((layout["storage_layout"], layout.get("transient_storage_layout")))
    storage, transient = layouts[0]
    assert set(storage) == {"state"}
    assert set(transient) >= {"state"}
    for other_storage, other_transient in layouts[1:]:
        assert other_storage == storage
        assert other_transient["state"] == transient["state"]


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x02\x03", b"\xde\xad\xbe\xef", b"\xde\xad\xbe\xef" + bytes(64)])
def test_unknown_calls_are_refused(chain: Chain, data: bytes) -> None:
    with pytest.raises(Reverted) as refusal:
        transact(chain.requester.address, chain.hub, data)
    assert refusal.value.reason == "fallback-disabled"


def test_ether_is_refused(chain: Chain) -> None:
    boa.env.set_balance(chain.requester.address, 10**18)
    with pytest.raises(Reverted) as refusal:
        transact(chain.requester.address, chain.hub, b"", value=1)
    assert refusal.value.reason == "fallback-disabled"
    for signature in ("deposit(uint256)", "initialize(bytes32,uint256)", "claim(bytes32)"):
        with pytest.raises(Reverted):
            transact(chain.requester.address, chain.hub, selector(signature) + bytes(64), value=1)
    assert boa.env.get_balance(chain.hub) == 0


@pytest.mark.parametrize("name", PARTS[1:])
def test_a_part_alone_belongs_to_nobody(chain: Chain, name: str) -> None:
    """A part called directly works on its own empty storage, where there is no owner and no money."""
    part = chain.parts[name].address
    for caller in (chain.deployer, Actor.named("attacker").address):
        for data in (
            selector("setTeeBroker(address)") + bytes(31) + b"\x01",
            selector("transferOwnership(address)") + bytes(31) + b"\x01",
            selector("setCallbackGas(uint256)") + bytes(31) + b"\x01",
            selector("recover()"),
            selector("withdraw(uint256)") + bytes(31) + b"\x01",
        ):
            with pytest.raises(Reverted):
                transact(caller, part, data)
    assert chain.view("owner()", "address") == chain.deployer.lower()
