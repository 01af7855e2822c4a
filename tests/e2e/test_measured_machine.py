"""The main job in a measured virtual machine: a real boot into a real software TPM, a key that the SMS releases to it alone,
and a receipt that a stranger proves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.machines import built_image
from tests.support.network import LiveNetwork, live_network, write_app

from cloister import verify_receipt
from cloister.attestation.assurance import SIMULATED_WARNING, TPM_WARNING
from cloister.attestation.evidence import EvidenceKind
from cloister.errors import Denied
from cloister.generator.bundle import build_bundle
from cloister.network.enclaves import EnclaveChoice
from cloister.worker.vm.kept import image_folder

pytestmark = [pytest.mark.xdist_group("vm"), pytest.mark.nightly]
SECONDS = 280


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[LiveNetwork]:
    """A network whose tasks run in virtual machines; its image is the one that all tests share."""
    image = built_image()
    home = tmp_path / "home"
    kept = image_folder(home / "vm")
    kept.parent.mkdir(parents=True)
    kept.symlink_to(image.folder)
    with live_network(home, name="machines", enclave=EnclaveChoice.VM, slots=1) as network:
        yield network


@pytest.mark.timeout(SECONDS + 60)
def test_the_main_job_in_a_measured_machine(machines: LiveNetwork, tmp_path: Path) -> None:
    description = machines.network.description
    assert description.enclave_kind == "tpm"
    assert not description.simulated
    company, owner, requester = machines.newcomer(), machines.newcomer(), machines.newcomer(stake="1 RLC")
    app = company.apps.deploy(build_bundle(write_app(tmp_path / "app", seconds=120)).path, name="probe")
    company.apps.publish(app.address)
    data = owner.protect_data({"email": "alice@example.org", "age": 41}, name="contact")
    grant = owner.grant_access(
        data, app=app, user=requester.connection.address, hardware={"kind": "tpm", "measurements": "any"}
    )
    run = requester.process_protected_data(data, app=app, workerpool_max_price="0.02 RLC", timeout=SECONDS)
    answer = json.loads(run.result.read("answer.json"))
    assert answer["data"]["email"] == "alice@example.org"

    saved = tmp_path / "receipt.cose"
    saved.write_bytes(run.receipt.encoded)
    verdict = verify_receipt(saved, network="machines", rpc=description.rpc_url)
    told = verdict.to_json()
    assert verdict.warning == TPM_WARNING
    assert SIMULATED_WARNING not in json.dumps(told)
    assert told["evidence"]["kind"] == EvidenceKind.TPM
    assert told["task_id"] == str(run.task_id)
    assert told["dataset"] == str(data.address).lower() or told["dataset"] == str(data.address)
    assert told["chain"]["verified"] is True
    lines = [line for line in owner.get_history(data.address).entries if line.outcome == "released"]
    assert [(line.task_id, line.evidence_kind) for line in lines] == [(run.task_id, "tpm")]

    owner.revoke_access(grant)
    with pytest.raises(Denied):
        requester.process_protected_data(data, app=app, workerpool_max_price="0.02 RLC", timeout=SECONDS)
