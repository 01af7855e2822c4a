"""Whatever the bytes, the answer is claims or a named refusal, and claims only for what was really signed."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.snp_authority import SnpAuthority

from cloister.attestation import der
from cloister.attestation.cbor import build_cbor
from cloister.attestation.snp_payload import (
    build_snp_evidence,
    parse_certificate_table,
    parse_certificates,
    parse_snp_evidence,
)
from cloister.attestation.verifiers.amd_certificates import parse_certificate, parse_revocation_list
from cloister.attestation.verifiers.snp import verify_snp
from cloister.attestation.verifiers.snp_report import SIGNED_SIZE, parse_report
from cloister.errors import DecodeError, VerificationError

NOW = 1_800_000_000
MILAN = SnpAuthority.create("Milan")
COLLATERAL = MILAN.collateral()
RAW = MILAN.raw_report(bytes(64))
CHAIN = MILAN.chain()
WHOLE = build_snp_evidence(RAW, CHAIN)
KEY = MILAN.signing_key()
READERS = (parse_snp_evidence, parse_report, parse_certificate, parse_revocation_list)
FEW = settings(max_examples=120, deadline=None)

edits = st.lists(
    st.tuples(
        st.integers(0, 2**16), st.sampled_from(["set", "cut", "insert", "repeat"]), st.binary(min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    for place, how, value in changes:
        at = place % (len(data) + 1)
        match how:
            case "set":
                data = data[:at] + value + data[at + len(value) :]
            case "cut":
                data = data[:at] + data[at + len(value) :]
            case "insert":
                data = data[:at] + value + data[at:]
            case _:
                data = data[:at] + data[at : at + 64 * len(value)] + data[at:]
    return data


@FEW
@given(st.binary(max_size=4096))
def test_any_bytes(data: bytes) -> None:
    for parse in (*READERS, parse_certificates, parse_certificate_table):
        with suppress(DecodeError):
            parse(data)


@FEW
@given(edits)
def test_an_edited_payload_never_passes(changes: list[tuple[int, str, bytes]]) -> None:
    payload = edited(WHOLE, changes)
    with suppress(DecodeError, VerificationError):
        verify_snp(payload, COLLATERAL, NOW)
        assert payload == WHOLE


@FEW
@given(edits, st.integers(0, 1))
def test_an_edited_certificate_never_passes(changes: list[tuple[int, str, bytes]], which: int) -> None:
    chain = list(CHAIN)
    chain[which] = edited(chain[which], changes)
    with suppress(DecodeError, VerificationError):
        verify_snp(build_cbor([1, RAW, list(chain)]), COLLATERAL, NOW)
        assert chain == CHAIN


@FEW
@given(edits)
def test_an_edited_list_never_passes(changes: list[tuple[int, str, bytes]]) -> None:
    genuine_list = MILAN.crl()
    crl = edited(genuine_list, changes)
    with suppress(DecodeError, VerificationError):
        claims = verify_snp(WHOLE, MILAN.collateral(crls=[crl]), NOW)
        assert crl == genuine_list or not claims.attributes["crl_checked"]


@FEW
@given(edits)
def test_firmware_that_signs_anything(changes: list[tuple[int, str, bytes]]) -> None:
    """The signature holds whatever stands there: form and endorsement alone decide, without another exception."""
    body = edited(RAW[:SIGNED_SIZE], changes)[:SIGNED_SIZE].ljust(SIGNED_SIZE, b"\x00")
    with suppress(DecodeError, VerificationError):
        claims = verify_snp(build_snp_evidence(MILAN.sign(body, KEY), CHAIN), COLLATERAL, NOW)
        assert claims.measurement == body[0x90:0xC0]
        assert claims.report_data == body[0x50:0x90]


@FEW
@given(st.integers(-(2**70), 2**70))
def test_integers_have_one_encoding(number: int) -> None:
    content = number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)
    element = der.parse_element(bytes([der.INTEGER, len(content)]) + content, der.INTEGER)
    assert der.parse_integer(element) == number
    longer = (b"\xff" if number < 0 else b"\x00") + content
    with suppress(DecodeError):
        der.parse_integer(der.Element(der.INTEGER, longer, b""))
        raise AssertionError(number)
