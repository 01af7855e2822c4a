"""Evidence of Azure's confidential VMs that must be refused, and by which name."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.rsa_keys import rsa_key
from tests.support.snp_authority import DEBUG, POLICY, SnpAuthority
from tests.support.tpm_authority import Boot, boot_pcrs, elliptic_key, record, select_pcrs, sign_attest, sized
from tests.support.vtpm_authority import NOW, VtpmAuthority, base64url, encode_vtpm, jwk

from cloister.attestation.cbor import build_cbor, parse_cbor
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.tpm.azure import SnpVtpmPayload
from cloister.attestation.tpm.payload import build_qualifying_data
from cloister.attestation.verifiers.snp_vtpm import verify_snp_vtpm
from cloister.errors import DecodeError, VerificationError

REPORT_DATA = hashlib.sha512(b"report").digest()
VM = VtpmAuthority()
ATTACKER = rsa.generate_private_key(65537, 2048)
HONEST = VM.parts(REPORT_DATA)
PAYLOAD = encode_vtpm(HONEST).payload
PCRS = dict(HONEST.pcrs)
COLLATERAL = VM.collateral()
CLAIMS = VM.claims()


def verify(payload: bytes, collateral: Collateral = COLLATERAL, now: int = NOW):
    return verify_snp_vtpm(payload, collateral, now)


def member(key: int, value: object) -> bytes:
    return build_cbor(parse_cbor(PAYLOAD) | {key: value})


def hcl(claims: bytes | None = None, **options: object) -> SnpVtpmPayload:
    """Honest but for the paravisor's report, which the hardware signed as it is."""
    return replace(HONEST, hcl_report=VM.hcl(claims, **options))


def with_keys(*keys: object) -> SnpVtpmPayload:
    return hcl(VM.claims(keys=list(keys)))


def with_key(**changed: object) -> SnpVtpmPayload:
    return with_keys(jwk("HCLAkPub", ["sign"], VM.ak.public_key()) | changed)


def quoted(**attest: object) -> SnpVtpmPayload:
    """Honest but for fields of the quote, which the true key signed."""
    return replace(VM.parts(REPORT_DATA, **attest), hcl_report=HONEST.hcl_report)


def patched(offset: int, value: bytes) -> SnpVtpmPayload:
    """Bytes of the paravisor's report written over, nothing signed anew."""
    report = HONEST.hcl_report
    return replace(HONEST, hcl_report=report[:offset] + value + report[offset + len(value) :])


OTHER_CLAIMS = VtpmAuthority(VM.snp, ATTACKER).claims()
OTHER_CHIP = VM.snp.chain(chip="other")

MUTATIONS: dict[str, tuple[Callable[[], bytes | SnpVtpmPayload], str]] = {
    # form
    "empty map": (lambda: build_cbor({}), "evidence-malformed"),
    "no cbor": (lambda: b"\xff" * 64, "evidence-malformed"),
    "cut short": (lambda: PAYLOAD[:-1], "evidence-malformed"),
    "a byte behind": (lambda: PAYLOAD + b"\0", "evidence-malformed"),
    "a ninth member": (lambda: member(9, b""), "evidence-malformed"),
    "version 0": (lambda: member(1, 0), "evidence-version"),
    "a number for a certificate": (lambda: member(3, [1]), "evidence-malformed"),
    "five certificates": (lambda: member(3, [b"x"] * 5), "evidence-malformed"),
    "a certificate of 5 KiB": (lambda: member(3, [bytes(5000)]), "evidence-malformed"),
    "a text for a quote": (lambda: member(4, "x"), "evidence-malformed"),
    "report data of 32 bytes": (lambda: member(8, bytes(32)), "evidence-malformed"),
    "no registers": (lambda: member(6, {}), "evidence-malformed"),
    "register -1": (lambda: member(6, PCRS | {-1: bytes(32)}), "evidence-malformed"),
    # the paravisor's report
    "a report of 9 KiB": (lambda: hcl(tail=bytes(9000)), "evidence-malformed"),
    "an empty report": (lambda: replace(HONEST, hcl_report=b"HCLA"), "hcl-malformed"),
    "a report cut in its claims": (lambda: replace(HONEST, hcl_report=HONEST.hcl_report[:1400]), "hcl-malformed"),
    "another magic": (lambda: patched(0, b"HCLB"), "hcl-malformed"),
    "an unknown version": (lambda: hcl(header={4: 9}), "hcl-malformed"),
    "another total": (lambda: hcl(header={8: 0}), "hcl-malformed"),
    "another request": (lambda: hcl(header={12: 3}), "hcl-malformed"),
    "a failed request": (lambda: hcl(header={16: 1}), "hcl-malformed"),
    "something reserved": (lambda: hcl(header={28: 1}), "hcl-malformed"),
    "another size of the claims": (lambda: hcl(header={1216: 20}), "hcl-malformed"),
    "an unknown version of the claims": (lambda: hcl(header={1220: 2}), "hcl-malformed"),
    "a TDX report": (lambda: hcl(header={1224: 4}), "hcl-report-type"),
    "claims under SHA-512": (lambda: hcl(header={1228: 3}), "hcl-hash-type"),
    "claims of 4 GiB": (lambda: hcl(header={1232: 2**32 - 1}), "hcl-malformed"),
    "something behind the claims": (lambda: hcl(tail=bytes(10) + b"\1"), "hcl-malformed"),
    # the hardware's half
    "another vendor's root": (
        lambda: VtpmAuthority(SnpAuthority.create(stranger=True), VM.ak).parts(REPORT_DATA),
        "untrusted-root",
    ),
    "no certificate": (lambda: replace(HONEST, certificates=()), "certificate-missing"),
    "another chip's certificate": (lambda: replace(HONEST, certificates=tuple(OTHER_CHIP)), "evidence-signature"),
    "a report that is not signed": (lambda: patched(32 + 0x2A0, bytes(144)), "snp-signature-format"),
    "a measurement written over": (lambda: patched(32 + 0x90, bytes(48)), "evidence-signature"),
    "a report asked for by the guest": (lambda: hcl(vmpl=2), "hcl-vmpl"),
    "the guest's report with its own key": (lambda: hcl(OTHER_CLAIMS, vmpl=1), "hcl-vmpl"),
    # the binding
    "the attacker's key in the claims": (
        lambda: replace(
            HONEST,
            hcl_report=HONEST.hcl_report.replace(CLAIMS, OTHER_CLAIMS),
            signature=sign_attest(ATTACKER, HONEST.attest),
        ),
        "hcl-binding",
    ),
    "claims in other spelling": (
        lambda: replace(HONEST, hcl_report=HONEST.hcl_report.replace(b'"secure-boot":true', b'"Secure-boot":true')),
        "hcl-binding",
    ),
    "a report about something else": (lambda: hcl(report_data=bytes(64)), "hcl-binding"),
    "something behind the hash": (
        lambda: hcl(report_data=hashlib.sha256(CLAIMS).digest() + bytes(31) + b"\1"),
        "hcl-binding",
    ),
    # the claims
    "claims that are no JSON": (lambda: hcl(b"claims"), "hcl-claims"),
    "claims that are a list": (lambda: hcl(b"[]"), "hcl-claims"),
    "claims nested without end": (lambda: hcl(b"[" * 3000), "hcl-claims"),
    "claims with a name twice": (lambda: hcl(CLAIMS[:-1] + b',"keys":[]}'), "hcl-claims"),
    "claims that are no UTF-8": (lambda: hcl(b'{"\xff\xfe":1}'), "hcl-claims"),
    "no keys": (with_keys, "hcl-claims"),
    "keys that are no list": (lambda: hcl(VM.claims(keys={})), "hcl-claims"),
    "two keys of the name": (
        lambda: with_keys(*[jwk("HCLAkPub", ["sign"], key.public_key()) for key in (VM.ak, ATTACKER)]),
        "hcl-claims",
    ),
    "a key by another name": (lambda: with_key(kid="HCLEkPub"), "hcl-claims"),
    "a key that encrypts": (lambda: with_key(key_ops=["encrypt"]), "hcl-claims"),
    "a key of another type": (lambda: with_key(kty="EC"), "hcl-claims"),
    "exponent 3": (lambda: with_key(e="Aw"), "hcl-claims"),
    "a modulus that is a number": (lambda: with_key(n=5), "hcl-claims"),
    "a modulus of 1024 bits": (lambda: with_key(n=base64url(b"\xff" * 128)), "hcl-claims"),
    "an even modulus": (lambda: with_key(n=base64url(b"\xff" * 255 + b"\xfe")), "hcl-claims"),
    "a modulus that is no base64": (lambda: with_key(n="é" * 342), "hcl-claims"),
    # the quote
    "signed by another key": (
        lambda: replace(HONEST, signature=sign_attest(ATTACKER, HONEST.attest)),
        "quote-signature",
    ),
    "signed with an elliptic key": (
        lambda: replace(HONEST, signature=sign_attest(elliptic_key("x"), HONEST.attest)),
        "quote-signature",
    ),
    "signed by the encryption key": (
        lambda: replace(HONEST, signature=sign_attest(rsa_key("root"), HONEST.attest)),
        "quote-signature",
    ),
    "a bare signature": (lambda: replace(HONEST, signature=HONEST.signature[6:]), "signature-scheme"),
    "a byte behind the signature": (lambda: replace(HONEST, signature=HONEST.signature + b"\0"), "signature-malformed"),
    "an empty signature": (
        lambda: replace(HONEST, signature=struct.pack(">HH", 0x14, 11) + sized(b"")),
        "quote-signature",
    ),
    "a quote written over": (
        lambda: replace(HONEST, attest=HONEST.attest[:-1] + bytes([HONEST.attest[-1] ^ 1])),
        "quote-signature",
    ),
    "no quote but a certification": (lambda: quoted(type=0x8017), "quote-type"),
    "not made by a TPM": (lambda: quoted(magic=0), "quote-magic"),
    "a byte behind the quote": (lambda: quoted(tail=b"\0"), "quote-malformed"),
    "another nonce": (lambda: quoted(extra_data=build_qualifying_data(bytes(64))), "quote-binding"),
    "report data itself as nonce": (lambda: quoted(extra_data=REPORT_DATA), "quote-binding"),
    "other report data": (lambda: replace(HONEST, report_data=bytes(64)), "quote-binding"),
    "the SHA-1 bank": (lambda: quoted(selection=select_pcrs(PCRS, bank=4)), "quote-selection"),
    "a register not quoted": (lambda: quoted(selection=select_pcrs(range(23))), "quote-selection"),
    "a register not given": (
        lambda: replace(HONEST, pcrs={i: v for i, v in PCRS.items() if i != 23}),
        "quote-selection",
    ),
    "another kernel's register": (lambda: replace(HONEST, pcrs=PCRS | {4: bytes(32)}), "quote-pcr-digest"),
    # the event log
    "another boot's log": (lambda: replace(HONEST, event_log=Boot(kernel=b"other").log()), "event-log-mismatch"),
    "an event too many": (
        lambda: replace(HONEST, event_log=HONEST.event_log + record(1, 5, b"x", b"x")),
        "event-log-mismatch",
    ),
    "a log that is none": (lambda: replace(HONEST, event_log=b"log"), "event-log-malformed"),
    "a log for registers that differ": (
        lambda: quoted(pcrs=boot_pcrs(Boot().log()) | {7: bytes(32)}),
        "event-log-mismatch",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_refused_by_name(name):
    change, code = MUTATIONS[name]
    changed = change()
    payload = changed if isinstance(changed, bytes) else encode_vtpm(changed).payload
    with pytest.raises((DecodeError, VerificationError)) as refusal:
        verify(payload)
    assert refusal.value.code == code, refusal.value.message


def test_honest_parts_pass():
    assert verify(PAYLOAD).report_data == REPORT_DATA
    assert verify(encode_vtpm(hcl()).payload).measurement == verify(encode_vtpm(quoted()).payload).measurement
    assert json.loads(CLAIMS)["keys"][0]["kid"] == "HCLAkPub"


def test_debug_stays_visible():
    assert verify(encode_vtpm(hcl(policy=POLICY | DEBUG)).payload).debug is True


ROOTS: dict[str, tuple[Callable[[], tuple[Collateral, int]], str]] = {
    "no root": (lambda: (Collateral(), NOW), "no-trusted-root"),
    "a root for bare SNP alone": (lambda: (VM.snp.collateral(), NOW), "no-trusted-root"),
    "another root of the same name": (
        lambda: (VtpmAuthority(SnpAuthority.create(stranger=True), VM.ak).collateral(), NOW),
        "untrusted-root",
    ),
    "garbage for a root": (lambda: (Collateral(((EvidenceKind.SNP_VTPM, b"root"),)), NOW), "certificate-malformed"),
    "the year 2050": (lambda: (COLLATERAL, 2_525_000_000), "certificate-expired"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_collateral_that_does_not_hold(name):
    collateral, now = ROOTS[name][0]()
    with pytest.raises((DecodeError, VerificationError)) as refusal:
        verify(PAYLOAD, collateral, now)
    assert refusal.value.code == ROOTS[name][1], refusal.value.message


def test_revoked_intermediates_are_refused():
    vendor = SnpAuthority.create()
    vendor.revoke()
    with pytest.raises(VerificationError) as refusal:
        verify(PAYLOAD, VtpmAuthority(vendor, VM.ak).collateral())
    assert refusal.value.code == "certificate-revoked"


def test_no_changed_byte_goes_unseen():
    """One bit in every eleventh byte. What may pass is what no signature covers, and it changes no fact."""
    start = PAYLOAD.index(HONEST.event_log)
    log = range(start, start + len(HONEST.event_log))
    honest = verify(PAYLOAD)
    codes = set()
    for position in range(0, len(PAYLOAD), 11):
        changed = bytearray(PAYLOAD)
        changed[position] ^= 1 << position % 8
        try:
            claims = verify(bytes(changed))
        except (DecodeError, VerificationError) as refusal:
            codes.add(refusal.code)
        else:
            assert position in log, position
            assert (claims.measurement, claims.registers) == (honest.measurement, honest.registers)
    assert not codes & {"malformed", "verification-failed", "remote"}, "every refusal has a name of its own"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_by_name(data):
    with pytest.raises((DecodeError, VerificationError)):
        verify(data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_any_claims_of_a_paravisor_are_refused_by_name(data):
    """Even what the hardware signed may be anything."""
    with pytest.raises((DecodeError, VerificationError)):
        verify(encode_vtpm(hcl(data)).payload)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_splice_is_refused_or_changes_nothing(data):
    start = data.draw(st.integers(0, len(PAYLOAD)))
    end = data.draw(st.integers(start, min(start + 64, len(PAYLOAD))))
    changed = PAYLOAD[:start] + data.draw(st.binary(max_size=64)) + PAYLOAD[end:]
    try:
        claims = verify(changed)
    except (DecodeError, VerificationError):
        return
    assert claims.registers["pcr4"] == PCRS[4]
