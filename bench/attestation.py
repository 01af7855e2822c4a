"""Evidence and key release: what an appraisal, a session and a measured boot take.

Evidence is made under test roots of the same form as the vendors' (``tests/support``), because what is measured is the
appraisal. Sessions go through the real SMS over HTTP with SQLite; the chain it asks is in memory, so the figures are the
SMS's own. The virtual machine is built and booted here, with KVM where that works.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.dcap_authority import DcapAuthority
from tests.support.sms_world import DATASET, DATASET_KEY, START, Enclave, World
from tests.support.snp_authority import MEASUREMENT as SNP_MEASUREMENT
from tests.support.snp_authority import SnpAuthority
from tests.support.tpm_authority import APP_DIGEST, TpmAuthority
from tests.support.tpm_authority import NOW as TPM_NOW
from tests.support.vtpm_authority import VtpmAuthority

from bench.rows import Row
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import ANY, EnclavePolicy
from cloister.attestation.verify import appraise
from cloister.protocol import authorization

APPRAISALS = 200
SESSIONS = 300
CLIENTS = 8
REPORT_DATA = hashlib.sha512(b"bench").digest()


def measure() -> list[Row]:
    """All rows; those of the virtual machine only where QEMU and swtpm are installed."""
    rows = [_appraisal(*case) for case in _cases()]
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder:
        rows += _sessions(Path(folder))
        if shutil.which("qemu-system-x86_64") and shutil.which("swtpm"):
            rows += _machine(Path(folder))
    return rows


def _cases() -> list[tuple[Evidence, EnclavePolicy, Collateral, int]]:
    intel, amd, tpm = DcapAuthority.create(now=START), SnpAuthority.create(), TpmAuthority.create()
    cases: list[tuple[Evidence, EnclavePolicy, Collateral, int]] = []
    for kind, quote, measurement in (
        (EvidenceKind.TDX, intel.tdx_quote(REPORT_DATA), b"\x11" * 48),
        (EvidenceKind.SGX, intel.sgx_quote(REPORT_DATA), b"\x41" * 32),
    ):
        registers: dict[str, Any] = {"rtmr1": ANY, "rtmr2": ANY} if kind is EvidenceKind.TDX else {}
        policy = EnclavePolicy(kind, _root(intel.collateral(kind), kind), frozenset({measurement}), registers=registers)
        cases.append((Evidence(kind, quote), policy, intel.collateral(kind), START))
    kind = EvidenceKind.SNP
    policy = EnclavePolicy(kind, _root(amd.collateral(), kind), frozenset({SNP_MEASUREMENT}))
    cases.append((amd.evidence(REPORT_DATA), policy, amd.collateral(), START))
    kind = EvidenceKind.TPM
    policy = EnclavePolicy(kind, _root(tpm.collateral(), kind), frozenset({tpm.measurement()}))
    cases.append((tpm.evidence(REPORT_DATA, app_digest=APP_DIGEST), policy, tpm.collateral(), TPM_NOW))
    kind, azure = EvidenceKind.SNP_VTPM, VtpmAuthority(amd)
    policy = EnclavePolicy(
        kind, _root(azure.collateral(), kind), frozenset({SNP_MEASUREMENT}), registers={"pcr4": ANY, "pcr9": ANY}
    )
    cases.append((azure.evidence(REPORT_DATA), policy, azure.collateral(), TPM_NOW))
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        payload = world.platform.evidence(REPORT_DATA, issued_at=START)
        evidence = Evidence(EvidenceKind.SIMULATED, payload)
        collateral = world.settings.collateral
        assert isinstance(collateral, Collateral)
        cases.append((evidence, world.platform.policy(), collateral, START))
    return cases


def _root(collateral: Collateral, kind: EvidenceKind) -> frozenset[bytes]:
    return frozenset(hashlib.sha256(root).digest() for root in collateral.roots_of(kind))


def _appraisal(evidence: Evidence, policy: EnclavePolicy, collateral: Collateral, now: int) -> Row:
    def once() -> None:
        appraise(
            evidence,
            policy=policy,
            expected_report_data=REPORT_DATA,
            expected_app_digest=APP_DIGEST,
            now=now,
            collateral=collateral,
        )

    return Row(f"appraisal of {evidence.kind} evidence, p50", _median_ms(once, APPRAISALS), "ms")


def _sessions(folder: Path) -> list[Row]:
    with World(folder).serving() as world:
        challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
        target = f"/secrets/web3?secretAddress={DATASET}"
        status, body = world.set_secret("POST", target, DATASET_KEY, challenge, world.owner)
        if status != 204:
            raise RuntimeError(f"the SMS refused the data's key: {body!r}")
        enclave = Enclave()

        def once() -> None:
            status, body = world.open(world.call(world.request(enclave, world.nonce())))
            if status != 200:
                raise RuntimeError(f"the SMS refused a session: {body}")

        alone = _median_ms(once, SESSIONS // 3)
        return [
            Row("session: nonce, evidence, appraisal, sealed release, p50", alone, "ms"),
            Row(f"key releases, {CLIENTS} clients at once", _throughput(once), "1/s", None, "more"),
        ]


def _throughput(once: Callable[[], None]) -> float:
    failures: list[BaseException] = []

    def many() -> None:
        try:
            for _ in range(SESSIONS // CLIENTS):
                once()
        except BaseException as error:  # noqa: BLE001  told below
            failures.append(error)

    threads = [threading.Thread(target=many) for _ in range(CLIENTS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return CLIENTS * (SESSIONS // CLIENTS) / (time.perf_counter() - begun)


def _machine(folder: Path) -> list[Row]:
    from cloister.worker.vm.builder import build_image
    from cloister.worker.vm.measure import measure_image
    from cloister.worker.vm.qemu import VmOptions, choose_accelerator

    cache, options = folder / "packages", VmOptions()
    took = []
    for name in ("cold", "warm"):
        begun = time.perf_counter()
        image = build_image(folder / name, cache=cache)
        took.append(time.perf_counter() - begun)
    size = sum(path.stat().st_size for path in image.folder.iterdir()) / 1e6
    boots = [measure_image(image, options) for _ in range(3)]
    if len({boot.measurement for boot in boots}) != 1:
        raise RuntimeError("three boots of one image measured differently")
    accelerator = choose_accelerator(options).value
    return [
        Row("virtual machine: image built, packages downloaded", took[0], "s"),
        Row("virtual machine: image built, packages kept", took[1], "s"),
        Row("virtual machine: size of the image", size, "MB"),
        Row(
            f"virtual machine: measured boot to agent ready, {accelerator}, p50",
            statistics.median(boot.seconds for boot in boots),
            "s",
        ),
    ]


def _median_ms(once: Callable[[], None], times: int) -> float:
    once()
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        once()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000
