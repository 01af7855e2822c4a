"""The shapes in which a report and its certificates come: our payload, a host's table, PEM and DER."""

from __future__ import annotations

import subprocess
import sys
import time
from base64 import b64encode
from uuid import UUID

import pytest
from tests.support.genuine import genuine
from tests.support.snp_authority import SnpAuthority

from cloister.attestation.cbor import build_cbor
from cloister.attestation.snp_payload import (
    MAX_SNP_PAYLOAD,
    build_snp_evidence,
    choose_certificates,
    parse_certificate_table,
    parse_certificates,
    parse_snp_evidence,
)
from cloister.attestation.verifiers.amd_certificates import parse_certificate, parse_revocation_list
from cloister.attestation.verifiers.snp import verify_snp
from cloister.errors import DecodeError, TooLarge

NOW = 1_800_000_000
DATA = bytes(64)
MILAN = SnpAuthority.create("Milan")
GUIDS = {
    "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
    "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "crl": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    "other": "00112233-4455-6677-8899-aabbccddeeff",
}


def table(*entries: tuple[str, bytes], padding: int = 0) -> bytes:
    """A host's table as the GHCB specification lays it out: entries, a zero entry, then the contents."""
    head, body = b"", b""
    start = 24 * (len(entries) + 1)
    for name, content in entries:
        place = (start + len(body)).to_bytes(4, "little") + len(content).to_bytes(4, "little")
        head, body = head + UUID(GUIDS[name]).bytes + place, body + content
    return head + bytes(24) + body + bytes(padding)


def pem(der: bytes) -> bytes:
    body = b64encode(der)
    lines = b"\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


def test_the_payload_reads_back() -> None:
    raw = MILAN.raw_report(DATA)
    for chain in ([], [MILAN.leaf()], MILAN.chain(), [*MILAN.chain(), MILAN.ark]):
        assert parse_snp_evidence(build_snp_evidence(raw, chain)) == (raw, tuple(chain))
    assert build_snp_evidence(raw) == build_cbor([1, raw, []])


def test_what_cannot_be_read_is_not_built() -> None:
    raw = MILAN.raw_report(DATA)
    for report, certificates in ((raw[:-1], []), (raw, [b""]), (raw, [b"0"] * 5), (raw, [b"0" * 4097])):
        with pytest.raises(DecodeError):
            build_snp_evidence(report, certificates)


def test_the_largest_payload_fits_its_cap() -> None:
    assert len(build_snp_evidence(MILAN.raw_report(DATA), [b"0" * 4096] * 4)) <= MAX_SNP_PAYLOAD


def test_a_hosts_table_of_every_kind() -> None:
    contents = {
        "vcek": MILAN.leaf(),
        "vlek": MILAN.leaf(signing_key="vlek"),
        "ask": MILAN.ask,
        "ark": MILAN.ark,
        "crl": MILAN.crl(),
    }
    blob = table(*contents.items(), ("other", b"unknown"), padding=300)
    assert parse_certificate_table(blob) == contents


@pytest.mark.parametrize("signing_key", ["vcek", "vlek"])
def test_evidence_out_of_a_hosts_table(signing_key: str) -> None:
    chain = MILAN.chain(signing_key=signing_key)
    raw = MILAN.raw_report(DATA, signing_key=signing_key)
    blob = table((signing_key, chain[0]), ("ask", pem(chain[1])), ("ark", MILAN.ark))
    payload = build_snp_evidence(raw, choose_certificates(raw, parse_certificate_table(blob)))
    assert verify_snp(payload, MILAN.collateral(), NOW).attributes["signing_key"] == signing_key


def test_a_table_without_the_signing_key_gives_nothing() -> None:
    blob = table(("vlek", MILAN.leaf(signing_key="vlek")), ("ask", MILAN.asvk))
    assert choose_certificates(MILAN.raw_report(DATA), parse_certificate_table(blob)) == ()
    with pytest.raises(DecodeError):
        choose_certificates(b"", {})


@pytest.mark.parametrize("blob", [b"", bytes(24), bytes(4096)])
def test_a_host_that_gives_no_certificates(blob: bytes) -> None:
    assert parse_certificate_table(blob) == {}


def entry(name: str, offset: int, length: int) -> bytes:
    return UUID(GUIDS[name]).bytes + offset.to_bytes(4, "little") + length.to_bytes(4, "little")


@pytest.mark.parametrize(
    "blob",
    [
        bytes(23),
        entry("vcek", 48, 10),
        entry("vcek", 48, 10) + bytes(24),
        entry("vcek", 2**32 - 1, 2**32 - 1) + bytes(24),
        entry("other", 48, 1) + bytes(24),
        table(("ask", b"\x30\x00"), ("ask", b"\x30\x00")),
        table(("ask", pem(b"\x30\x00") * 2)),
        table(("ask", b"neither")),
        entry("vcek", 0, 0) * 65 + bytes(24),
    ],
    ids=[
        "short",
        "no end",
        "outside",
        "wraps",
        "outside, unknown",
        "twice",
        "two in one",
        "no certificate",
        "too many",
    ],
)
def test_a_table_that_is_wrong(blob: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_certificate_table(blob)


def test_pem_bundles_and_der() -> None:
    chain = (*MILAN.chain(), MILAN.ark)
    bundle = b"# of the machine\r\n" + b"".join(pem(der) for der in chain).replace(b"\n", b"\r\n")
    assert parse_certificates(bundle) == chain
    assert parse_certificates(MILAN.ark) == (MILAN.ark,)
    assert len(parse_certificates(genuine("vtpm/vcek.pem"))) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"-----BEGIN CERTIFICATE-----\nMAAw",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----",
    ],
)
def test_a_certificate_file_that_is_wrong(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_certificates(data)


def test_a_hundred_megabytes_are_refused_at_once() -> None:
    large = bytes(100 * 1024 * 1024)
    started = time.monotonic()
    with pytest.raises(TooLarge) as caught:
        verify_snp(large, MILAN.collateral(), NOW)
    assert caught.value.code == "evidence-too-large"
    for parse in (parse_certificate_table, parse_certificates, parse_certificate, parse_revocation_list):
        with pytest.raises(DecodeError):
            parse(large)
    assert time.monotonic() - started < 5  # a bound for a hang, no measure


@pytest.mark.parametrize(
    "head", ["9affffffff", "8301 5affffffff", "830159ffff", "8301 5bffffffffffffffff", "9bffffffffffffffff"]
)
def test_lengths_that_lie(head: str) -> None:
    with pytest.raises(DecodeError):
        verify_snp(bytes.fromhex(head) + MILAN.raw_report(DATA), MILAN.collateral(), NOW)


def test_the_building_side_loads_no_certificate_library() -> None:
    script = (
        "import sys, cloister.attestation.snp_payload; print([m for m in sys.modules if m.startswith('cryptography')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
