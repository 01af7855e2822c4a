"""Protected data is registered with its schema in one call."""

from __future__ import annotations

import boa
import pytest
from tests.contracts.conftest import Suite

CHECKSUM = b"\x07" * 32
ZERO = "0x" + "00" * 20


@pytest.mark.parametrize("schema", ["", '{"email":"string"}', "é" * 4096])
def test_dataset_and_schema(suite: Suite, data_owner: str, attacker: str, schema: str) -> None:
    expected = suite.datasets.predictDataset(data_owner, "contact", b"/ipfs/x", CHECKSUM)
    with boa.env.prank(attacker):
        address = suite.dataprotector.createDatasetWithSchema(data_owner, "contact", schema, b"/ipfs/x", CHECKSUM)
    assert address == expected
    names = [type(log).__name__ for log in suite.dataprotector.get_logs()]
    assert names == ["Transfer", "DatasetSchema"]
    log = suite.dataprotector.get_logs()[1]
    assert (log.dataset, log.schema) == (address, schema)
    assert suite.datasets.ownerOf(int(address, 16)) == data_owner
    assert suite.dataset(address).m_datasetName() == "contact"


def test_same_data_twice_is_refused(suite: Suite, data_owner: str) -> None:
    suite.dataprotector.createDatasetWithSchema(data_owner, "contact", "{}", b"/ipfs/x", CHECKSUM)
    with boa.reverts("Create2: Failed on deploy"):
        suite.dataprotector.createDatasetWithSchema(data_owner, "contact", "{}", b"/ipfs/x", CHECKSUM)


@pytest.mark.parametrize(
    ("name", "schema", "multiaddr"),
    [("n" * 257, "", b""), ("", "s" * 8193, b""), ("", "", b"m" * 1025)],
)
def test_too_wide_is_refused(suite: Suite, data_owner: str, name: str, schema: str, multiaddr: bytes) -> None:
    with boa.reverts():
        suite.dataprotector.createDatasetWithSchema(data_owner, name, schema, multiaddr, CHECKSUM)
    assert suite.datasets.totalSupply() == 0


def test_nobody_cannot_own(suite: Suite) -> None:
    with boa.reverts("ERC721: mint to the zero address"):
        suite.dataprotector.createDatasetWithSchema(ZERO, "contact", "{}", b"/ipfs/x", CHECKSUM)


def test_names_its_registry(suite: Suite) -> None:
    assert suite.dataprotector.datasetRegistry() == suite.datasets.address
