"""Private input files from a requester's disk to the enclave: nobody on the way reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.support.network import LiveNetwork, write_app

from cloister import DataProtector
from cloister.enclave.environment import input_file_name
from cloister.errors import CloisterError, InputError, NotFound, TooLarge
from cloister.generator.bundle import build_bundle
from cloister.protocol.params import INPUT_FILE_CAP, parse_params
from cloister.sdk.apps import App

READ = """
import hashlib, os
from cloister import iapp
iapp.write("seen.json", {
    "digests": [hashlib.sha256(path.read_bytes()).hexdigest() for path in iapp.inputs()],
    "secret": iapp.secret(3),
    "secrets": sorted(name for name in os.environ if name.startswith("IEXEC_REQUESTER_SECRET_")),
})
"""


@pytest.fixture(scope="module")
def reader(live: LiveNetwork, tmp_path_factory: pytest.TempPathFactory) -> App:
    """An app that says what files it was given."""
    company = live.connect("company")
    folder = write_app(tmp_path_factory.mktemp("reader"), name="reader", code=READ)
    deployed = company.apps.deploy(build_bundle(folder).path, name="reader")
    company.apps.publish(deployed.address)
    return deployed


def test_private_files_reach_the_enclave_only(reader: App, requester: DataProtector, tmp_path: Path) -> None:
    contents = [b"the requester's own " * 100_000, b"and another"]
    (tmp_path / "own.txt").write_bytes(contents[0])
    steps: list[str] = []
    protector = DataProtector(requester.connection, on_status=lambda status: steps.append(status.step))
    run = protector.process_protected_data(
        None,
        app=reader,
        private_files=[tmp_path / "own.txt", contents[1]],
        secrets={3: "for the app"},
        workerpool_max_price="0.02 RLC",
        timeout=60,
    )
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    assert json.loads(run.result.read("seen.json")) == {
        "digests": digests,
        "secret": "for the app",
        "secrets": ["IEXEC_REQUESTER_SECRET_3"],
    }
    connection = requester.connection
    deal = connection.hub.deal(run.deal_id, block="latest")
    assert deal is not None
    params = parse_params(deal.params)
    assert params.cloister_input_key == 4
    for url, content in zip(params.iexec_input_files, contents, strict=True):
        stored = b"".join(connection.store.open(url.rpartition("/")[2]))
        assert content[:10] not in stored
    used = run.receipt.verify().claims.inputs
    names = [input_file_name(url) for url in params.iexec_input_files]
    assert [(item.name, item.sha256.hex()) for item in used] == list(zip(names, digests, strict=True))
    assert steps.count("UPLOAD_PRIVATE_FILE") >= 2


def test_files_that_cannot_be_private_are_refused_before_anything_is_sent(
    reader: App, requester: DataProtector, tmp_path: Path
) -> None:
    held = requester.account.balances()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(INPUT_FILE_CAP)  # a hole; sealed it is larger than the cap
    cases: list[tuple[object, type[CloisterError], str]] = [
        ([tmp_path / "gone"], NotFound, "gone is not there"),
        ([tmp_path], InputError, "is a folder"),
        ([tmp_path / "large"], TooLarge, "workers fetch at most 268435456"),
        ([b""] * 101, TooLarge, "101 private files are over the cap of 100"),
        ([7], InputError, "private file 1 is a path or bytes, not int"),
        ("own.txt", InputError, "private_files is a list"),
    ]
    for files, kind, message in cases:
        with pytest.raises(kind, match=message):
            requester.process_protected_data(
                None,
                app=reader,
                private_files=files,  # type: ignore[arg-type]
                workerpool_max_price="0.02 RLC",
            )
    with pytest.raises(InputError, match="all private or all public"):
        requester.process_protected_data(
            None,
            app=reader,
            private_files=[b"x"],
            input_files=["https://example.org/x"],
            workerpool_max_price="0.02 RLC",
        )
    assert requester.account.balances() == held
