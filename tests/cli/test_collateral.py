"""``cloister collateral`` on a network that runs, with what Intel and AMD really publish; and its signed reference values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.cli.conftest import Town
from tests.support.dcap_authority import DcapAuthority
from tests.support.genuine import genuine

from cloister.attestation.bundle import parse_bundle
from cloister.attestation.evidence import EvidenceKind
from cloister.chain.contracts import Hub
from cloister.chain.rpc import JsonRpc
from cloister.cli.main import cli
from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DecodeError,
    InputError,
    NotFound,
    UnavailableError,
    VerificationError,
)
from cloister.protocol.networks import parse_network
from cloister.sdk.collateral import load_signed_reference


@pytest.fixture
def cloister(town: Town, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in this process: a process of its own for each of many calls would take longer than the rest."""
    monkeypatch.setenv("CLOISTER_HOME", str(town.terminal.home))

    def run(*words: object, fails: type[CloisterError] | None = None) -> Result:
        answer = CliRunner().invoke(cli, [str(word) for word in words])
        assert type(answer.exception) is (fails or type(None)), answer.output
        return answer

    return run


def test_import_status_show_export(town: Town, cloister: Callable[..., Result], tmp_path: Path) -> None:
    chain, chip, bundle = tmp_path / "milan.pem", tmp_path / "vcek.der", tmp_path / "bundle.cbor"
    chain.write_bytes(genuine("snp/ask_ark_milan.pem"))
    chip.write_bytes(genuine("snp/vcek-milan.der"))
    taken = town.terminal.json("collateral", "import", chain, chip, "--kind", "snp")
    assert [each["result"] for each in taken] == ["stored", "stored"]  # the root in the file is no collateral
    status = json.loads(cloister("collateral", "status", "--json").stdout)
    assert {each["key"].count("/") for each in status["documents"]} == {1, 2}
    assert all(each["days_left"] > 0 and each["source"].startswith("file ") for each in status["documents"])
    assert "certificate  Milan/ask" in town.terminal.run("collateral", "status").stdout
    shown = json.loads(cloister("collateral", "show", "Milan/ask", "--json").stdout)
    assert [each["content"]["subject"][:12] for each in shown] == ["CN=SEV-Milan"]
    assert "CN=ARK-Milan" in cloister("collateral", "show", "ask").stdout
    nothing = cloister("collateral", "show", "Genoa", fails=NotFound)
    assert "nothing that is kept" in str(nothing.exception)
    written = json.loads(cloister("collateral", "export", bundle, "--json").stdout)
    assert (written["documents"], len(parse_bundle(bundle.read_bytes()).documents)) == (2, 2)
    again = json.loads(cloister("collateral", "import", bundle, "--json").stdout)
    assert {each["result"] for each in again} == {"unchanged"}
    assert "wrote 2 documents" in cloister("collateral", "export", bundle).stdout


def test_what_is_not_proven_is_named(town: Town, cloister: Callable[..., Result], tmp_path: Path) -> None:
    old, forged = tmp_path / "old.json", tmp_path / "forged.json"
    forged.write_bytes(DcapAuthority.create(now=1_790_000_000).document(EvidenceKind.TDX).content)
    text = cloister("collateral", "import", forged, fails=VerificationError)
    assert "does not lead to a trusted root" in text.stdout
    assert "4 of 4 pieces refused" in str(text.exception)
    old.write_bytes(genuine("dcap/tdx_quote_collateral.json"))
    refused = town.terminal.run("collateral", "import", old, "--json", code=76)
    assert {(each["result"], each["code"]) for each in refused.json} == {("refused", "collateral-expired")}
    assert refused.error["code"] == "collateral-expired"


def test_what_cannot_be_read_is_an_error(town: Town, cloister: Callable[..., Result], tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"\x00" * 100)
    cloister("collateral", "import", noise, fails=DecodeError)
    malformed = cloister("collateral", "import", noise, "--kind", "snp", fails=DecodeError).exception
    assert isinstance(malformed, DecodeError)
    assert malformed.code == "collateral-malformed"
    cloister("collateral", "import", tmp_path / "none", fails=NotFound)
    url = town.announced["network"]["origin"]
    elsewhere = cloister("collateral", "import", noise, "--network", url, fails=InputError)
    assert "another machine" in str(elsewhere.exception)
    cloister("collateral", "import", noise, "--network", "nowhere", fails=NotFound)


def test_refresh_needs_a_source_and_names_the_one_that_is_away(town: Town, cloister: Callable[..., Result]) -> None:
    error = cloister("collateral", "refresh", fails=ConfigurationError).exception
    assert isinstance(error, ConfigurationError)
    assert "names no source" in error.message
    assert "collateral.json" in (error.hint or "")
    path = town.terminal.home / "networks" / "local" / "collateral.json"
    path.write_text(json.dumps({"amd": {"url": "http://127.0.0.1:9", "products": ["Genoa"]}}))
    try:
        answer = cloister("collateral", "refresh", "--json", fails=UnavailableError)
        assert {each["code"] for each in json.loads(answer.stdout)} == {"unavailable"}
    finally:
        path.unlink()


def test_reference_values_are_signed_by_the_sms_that_the_chain_names(town: Town) -> None:
    network = parse_network(town.announced["network"])
    sms = Hub(JsonRpc(network.rpc_url), network.contracts.hub).contract("teebroker", block="latest")
    known = {"chain_id": network.chain_id, "hub": network.contracts.hub}
    found = load_signed_reference(network.origin, sms=sms, **known)
    assert found.values
    with pytest.raises(VerificationError):
        load_signed_reference(network.origin, sms=network.workerpool, **known)
