"""Reports over a recorded configfs-tsm tree, with the driver's troubles."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.enclave.attesters.recorded import ARK, ASK, VCEK, VLEK, Driver, build_table
from tests.support.genuine import genuine

from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.snp_payload import REPORT_SIZE, parse_snp_evidence
from cloister.enclave.attesters import tsm
from cloister.enclave.attesters.tsm import MAX_OUTBLOB, find_tsm
from cloister.errors import CloisterError, LocalError, RemoteError, UnavailableError

REPORT_DATA = bytes(range(64))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsm, "_PAUSE", 0.0)


def snp_report(report_data: bytes) -> bytes:
    report = bytearray(REPORT_SIZE)
    report[0x50:0x90] = report_data
    return bytes(report)


def tdx_quote(report_data: bytes, version: int = 4, signature: bytes = b"signature" * 100) -> bytes:
    body = bytes(520) + report_data
    head = version.to_bytes(2, "little") + bytes(46)
    if version == 5:
        head += (2).to_bytes(2, "little") + len(body).to_bytes(4, "little")
    return head + body + len(signature).to_bytes(4, "little") + signature


def failing(number: int, *names: str, times: int = 10**6) -> Callable[[str, Path], None]:
    left = [times]

    def fail(name: str, folder: Path) -> None:
        if name in names and left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number))

    return fail


def attest(root: Path, driver: Driver, report_data: bytes = REPORT_DATA) -> bytes:
    attester = find_tsm(root, driver)
    assert attester is not None
    attester.measure_app(bytes(32))
    evidence = attester.attest(report_data, now=0)
    assert evidence.kind is attester.kind
    return evidence.payload


def test_a_genuine_snp_report_passes_through_with_its_certificates(tmp_path: Path) -> None:
    report, vcek = genuine("snp/report-milan.bin"), genuine("snp/vcek-milan.der")
    driver = Driver("sev_guest", lambda _: report[:REPORT_SIZE], build_table({VCEK: vcek, ASK: b"0ask", ARK: b"0ark"}))
    payload = attest(tmp_path, driver, report[0x50:0x90])
    assert parse_snp_evidence(payload) == (report[:REPORT_SIZE], (vcek, b"0ask", b"0ark"))


def test_a_genuine_tdx_quote_passes_through(tmp_path: Path) -> None:
    quote = genuine("dcap/tdx_quote")
    driver = Driver("tdx_guest", lambda _: quote)
    assert quote.startswith(payload := attest(tmp_path, driver, quote[568:632]))
    assert not any(quote[len(payload) :])


def test_each_request_is_a_folder_of_its_own_and_is_removed(tmp_path: Path) -> None:
    driver = Driver("sev_guest", snp_report)
    report, certificates = parse_snp_evidence(attest(tmp_path, driver))
    assert report == snp_report(REPORT_DATA)
    assert certificates == ()
    asked = ["generation", "privlevel", "inblob", "outblob", "auxblob", "generation"]
    assert driver.accesses == ["mkdir", "provider", "rmdir", "mkdir", *asked, "rmdir"]
    assert list(tmp_path.iterdir()) == []


def test_the_request_that_the_boot_prepared_is_used_and_stays(tmp_path: Path) -> None:
    driver = Driver("tdx_guest", tdx_quote)
    driver.make(tmp_path / "agent")
    driver.accesses.clear()
    assert attest(tmp_path, driver) == tdx_quote(REPORT_DATA)
    assert not {"mkdir", "rmdir"} & set(driver.accesses)
    assert (tmp_path / "agent").is_dir()


def test_a_request_is_made_at_the_most_trusted_level(tmp_path: Path) -> None:
    levels = []

    def look(name: str, folder: Path) -> None:
        if name == "outblob":
            levels.append((folder / "privlevel").read_bytes())

    attest(tmp_path, Driver("sev_guest", snp_report, before=look))
    assert levels == [b"0"]


def test_the_signers_certificate_is_chosen_from_the_table(tmp_path: Path) -> None:
    def vlek_report(report_data: bytes) -> bytes:
        report = bytearray(snp_report(report_data))
        report[0x48] = 1 << 2
        return bytes(report)

    table = build_table({VCEK: b"0vcek", VLEK: b"0vlek", ASK: b"0ask"})
    _, certificates = parse_snp_evidence(attest(tmp_path, Driver("sev_guest", vlek_report, table)))
    assert certificates == (b"0vlek", b"0ask")


@pytest.mark.parametrize("version", [4, 5])
def test_zeros_behind_a_quote_are_left_behind(tmp_path: Path, version: int) -> None:
    quote = tdx_quote(REPORT_DATA, version)
    assert attest(tmp_path, Driver("tdx_guest", lambda _: quote + bytes(500))) == quote


def test_other_bytes_behind_a_quote_are_for_the_verifier_to_refuse(tmp_path: Path) -> None:
    quote = tdx_quote(REPORT_DATA) + b"\0more"
    assert attest(tmp_path, Driver("tdx_guest", lambda _: quote)) == quote


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", ["inblob", "outblob", "generation"])
def test_a_busy_platform_is_asked_again(tmp_path: Path, number: int, name: str) -> None:
    driver = Driver("tdx_guest", tdx_quote, before=failing(number, name, times=2))
    assert attest(tmp_path, driver) == tdx_quote(REPORT_DATA)


def test_a_platform_that_stays_busy_is_given_up(tmp_path: Path) -> None:
    driver = Driver("tdx_guest", tdx_quote, before=failing(errno.EBUSY, "outblob"))
    with pytest.raises(UnavailableError, match="busy"):
        attest(tmp_path, driver)
    assert driver.accesses.count("outblob") == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENXIO, errno.EIO, errno.EINVAL, errno.EACCES])
@pytest.mark.parametrize("name", ["privlevel", "inblob", "outblob", "auxblob", "generation"])
def test_a_platform_that_fails_is_not_asked_again(tmp_path: Path, number: int, name: str) -> None:
    driver = Driver("sev_guest", snp_report, before=failing(number, name))
    with pytest.raises(UnavailableError, match="not to be had"):
        attest(tmp_path, driver)
    assert driver.accesses.count(name) == 1
    assert list(tmp_path.iterdir()) == []


def test_another_writer_is_noticed_and_the_report_asked_for_again(tmp_path: Path) -> None:
    races = [2]

    def race(name: str, folder: Path) -> None:
        if name == "outblob" and races[0]:
            races[0] -= 1
            (folder / "inblob").write_bytes(bytes(64))
            driver.advance(folder)

    driver = Driver("sev_guest", snp_report, before=race)
    report, _ = parse_snp_evidence(attest(tmp_path, driver))
    assert report == snp_report(REPORT_DATA)
    assert driver.accesses.count("outblob") == 3


def test_a_writer_that_never_rests_is_named(tmp_path: Path) -> None:
    def race(name: str, folder: Path) -> None:
        if name == "outblob":
            driver.advance(folder)

    driver = Driver("tdx_guest", tdx_quote, before=race)
    with pytest.raises(UnavailableError, match="somebody else"):
        attest(tmp_path, driver)


def test_a_write_that_the_kernel_dropped_is_noticed(tmp_path: Path) -> None:
    driver = Driver("tdx_guest", tdx_quote)
    driver.advance = lambda folder: None  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="somebody else"):
        attest(tmp_path, driver)


REPORTS: dict[str, tuple[str, Callable[[bytes], bytes], bytes]] = {
    "snp empty": ("sev_guest", lambda _: b"", b""),
    "snp cut short": ("sev_guest", lambda data: snp_report(data)[:-1], b""),
    "snp too long": ("sev_guest", lambda data: snp_report(data) + b"\0", b""),
    "snp of other report data": ("sev_guest", lambda _: snp_report(bytes(64)), b""),
    "snp over the cap": ("sev_guest", lambda _: bytes(MAX_OUTBLOB + 1), b""),
    "snp table that points outside": ("sev_guest", snp_report, build_table({VCEK: b"0"})[:-1]),
    "snp table without end": ("sev_guest", snp_report, b"\1" * 23),
    "snp table over the cap": ("sev_guest", snp_report, bytes(65 * 1024)),
    "tdx empty": ("tdx_guest", lambda _: b"", b""),
    "tdx of version 3": ("tdx_guest", lambda data: tdx_quote(data, 3), b""),
    "tdx head only": ("tdx_guest", lambda data: tdx_quote(data)[:48], b""),
    "tdx without signature": ("tdx_guest", lambda data: tdx_quote(data)[:632], b""),
    "tdx cut short": ("tdx_guest", lambda data: tdx_quote(data)[:-1], b""),
    "tdx signature of 2^32-1": ("tdx_guest", lambda data: tdx_quote(data)[:632] + b"\xff" * 4, b""),
    "tdx body of 2^32-1": ("tdx_guest", lambda data: tdx_quote(data, 5)[:50] + b"\xff" * 4 + bytes(600), b""),
    "tdx of other report data": ("tdx_guest", lambda _: tdx_quote(bytes(64)), b""),
    "tdx over the cap": ("tdx_guest", lambda data: tdx_quote(data, signature=bytes(MAX_OUTBLOB)), b""),
}


@pytest.mark.parametrize("name", REPORTS)
def test_damaged_reports_are_refused(tmp_path: Path, name: str) -> None:
    provider, report, table = REPORTS[name]
    with pytest.raises(RemoteError) as refused:
        attest(tmp_path, Driver(provider, report, table))
    assert refused.value.code in ("tsm-report", "certificate-table", "too-large")
    assert list(tmp_path.iterdir()) == []


def test_a_generation_that_is_no_number_is_refused(tmp_path: Path) -> None:
    driver = Driver("tdx_guest", tdx_quote)
    driver.make(tmp_path / "agent")
    (tmp_path / "agent" / "generation").write_text("many\n")
    with pytest.raises(RemoteError, match="not a number"):
        attest(tmp_path, driver)


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_of_another_size_is_ours_to_refuse(tmp_path: Path, size: int) -> None:
    with pytest.raises(LocalError):
        attest(tmp_path, Driver("tdx_guest", tdx_quote), bytes(size))


def test_there_may_be_no_hardware_behind_the_folder(tmp_path: Path) -> None:
    assert find_tsm(tmp_path / "absent") is None
    for number in (errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM):
        assert find_tsm(tmp_path, Driver("tdx_guest", tdx_quote, before=failing(number, "mkdir"))) is None


@pytest.mark.parametrize(("name", "number"), [("mkdir", errno.ENOMEM), ("mkdir", errno.EBUSY), ("provider", errno.EIO)])
def test_a_configfs_that_fails_is_no_machine_without_hardware(tmp_path: Path, name: str, number: int) -> None:
    with pytest.raises(UnavailableError):
        find_tsm(tmp_path, Driver("tdx_guest", tdx_quote, before=failing(number, name)))


@pytest.mark.parametrize("provider", ["", "arm_cca_guest", "tdx_guest2", "TDX_GUEST", "x" * 500])
def test_hardware_without_a_verifier_is_named(tmp_path: Path, provider: str) -> None:
    with pytest.raises(CloisterError) as refused:
        find_tsm(tmp_path, Driver(provider, tdx_quote))
    assert refused.value.code == "tsm-provider"
    assert len(refused.value.message) < 200


def test_kinds_follow_the_provider(tmp_path: Path) -> None:
    for provider, kind in (("tdx_guest", EvidenceKind.TDX), ("sev_guest", EvidenceKind.SNP)):
        found = find_tsm(tmp_path, Driver(provider, tdx_quote))
        assert found is not None
        assert found.kind is kind
