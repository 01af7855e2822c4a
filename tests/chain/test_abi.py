"""Our signatures against the list of the reference and against the compiled contracts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.vectors.loading import load_vectors

from cloister.chain import dataprotector, hub_reads, logs, registries, tokens
from cloister.chain.abi import (
    ERRORS,
    Event,
    Function,
    decode_revert,
    decode_values,
    encode_values,
    event,
    function,
)
from cloister.chain.artifacts import load_artifact
from cloister.errors import ConfigurationError, DecodeError, InputError
from cloister.protocol.codec import to_hex

APPENDIX = load_vectors("chain/selectors_and_topics.json")
ALL_FUNCTIONS: Mapping[str, Function] = {
    **tokens.FUNCTIONS,
    **registries.FUNCTIONS,
    **registries.ENTRY_FUNCTIONS,
    **hub_reads.FUNCTIONS,
    dataprotector.CREATE.name: dataprotector.CREATE,
}
HUB_PARTS = ("Hub", "HubViews", "HubTasks", "HubAccounts", "HubOrders")
REGISTRIES = ("AppRegistry", "DatasetRegistry", "WorkerpoolRegistry")
ENTRIES = ("App", "Dataset", "Workerpool")


@pytest.mark.parametrize("case", APPENDIX["cases"], ids=lambda case: case["name"])
def test_the_references_selectors_and_topics(case: dict[str, str]) -> None:
    if case["what"] == "event":
        assert logs.TOPICS[case["name"]] == case["value"]
    elif case["what"] == "error":
        assert to_hex({error.name: error for error in ERRORS}[case["name"]].selector) == case["value"]
    else:
        assert to_hex(ALL_FUNCTIONS[case["name"]].selector) == case["value"]


def canonical(parameter: dict[str, Any]) -> str:
    """The canonical type of an ABI parameter: tuples written out."""
    kind: str = parameter["type"]
    if kind.startswith("tuple"):
        return "(" + ",".join(canonical(part) for part in parameter["components"]) + ")" + kind[5:]
    return kind


def compiled(names: tuple[str, ...], what: str) -> dict[str, dict[str, Any]]:
    """Functions or events of some contracts, by signature."""
    entries: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            abi = load_artifact(name).abi
        except ConfigurationError as error:
            pytest.skip(f"{error.message}; {error.hint}")
        for entry in abi:
            if entry["type"] == what:
                entries[f"{entry['name']}({','.join(canonical(item) for item in entry['inputs'])})"] = entry
    return entries


@pytest.mark.parametrize(
    ("ours", "contracts"),
    [
        (hub_reads.FUNCTIONS, HUB_PARTS),
        (registries.ENTRY_FUNCTIONS, ENTRIES),
        (registries.FUNCTIONS, REGISTRIES),
        (tokens.FUNCTIONS, ("Rlc",)),
        ({"create": dataprotector.CREATE}, ("DataProtector",)),
    ],
    ids=["hub", "entries", "registries", "token", "dataprotector"],
)
def test_the_contracts_have_the_functions_we_call(ours: Mapping[str, Function], contracts: tuple[str, ...]) -> None:
    theirs = compiled(contracts, "function")
    for item in ours.values():
        assert item.signature in theirs
        if item.outputs:
            outputs = tuple(canonical(output) for output in theirs[item.signature]["outputs"])
            assert outputs == item.outputs, item.signature


def test_the_contracts_emit_the_events_we_read() -> None:
    theirs = compiled((*HUB_PARTS, *REGISTRIES, *ENTRIES, "Rlc", "DataProtector"), "event")
    by_shape = {(signature, tuple(item["indexed"] for item in entry["inputs"])) for signature, entry in theirs.items()}
    for ours in logs.EVENTS.values():
        signature = f"{ours.name}({','.join(ours.types)})"
        assert signature in theirs
        if ours.name not in ("Transfer", "Approval"):
            assert (signature, ours.is_indexed) in by_shape


def test_signatures_are_read() -> None:
    assert function("f((uint256,bytes)[],string)(bool,(address,bytes32))") == Function(
        "f", ("(uint256,bytes)[]", "string"), ("bool", "(address,bytes32)")
    )
    assert function("f()") == Function("f", (), ())
    assert event("E(address indexed,bytes)") == Event("E", ("address", "bytes"), (True, False))


@given(st.binary(max_size=200))
def test_any_revert_has_a_reason_and_none_raises(data: bytes) -> None:
    assert isinstance(decode_revert(data), str)
    assert isinstance(decode_revert(bytes.fromhex("08c379a0") + data), str)
    assert isinstance(decode_revert(bytes.fromhex("4e487b71") + data), str)


def test_reverts_are_explained() -> None:
    text = encode_values(["string"], ["iExecV5-matchOrders-0x06"])
    assert decode_revert(b"") == ""
    assert decode_revert(bytes.fromhex("08c379a0") + text) == "iExecV5-matchOrders-0x06"
    assert (
        decode_revert(bytes.fromhex("0afd9382") + encode_values(["string"], ["no"])) == "IncompatibleDatasetOrder(no)"
    )
    assert decode_revert(bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big")) == "panic 0x11: arithmetic overflow"
    assert decode_revert(b"\x01\x02\x03\x04") == "unknown error 0x01020304"


@pytest.mark.parametrize("data", [b"", b"\x00" * 31, b"\xff" * 64])
def test_answers_of_other_types_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_values(["address", "string"], data)


def test_values_that_do_not_fit_are_refused() -> None:
    for kind, value in (("uint8", 256), ("address", "0x12"), ("bytes32", b"a" * 33), ("bool", 2)):
        with pytest.raises(InputError):
            encode_values([kind], [value])
