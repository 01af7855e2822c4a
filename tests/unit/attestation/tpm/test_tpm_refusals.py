"""TPM evidence that must be refused, and by which name."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tpm_authority import (
    AK_USAGE,
    APP_DIGEST,
    DAY,
    EK_USAGE,
    NOW,
    Attest,
    Boot,
    TpmAuthority,
    elliptic_key,
    encode,
    log_head,
    record,
    select_pcrs,
    sha256,
    sign_attest,
    sized,
)

from cloister.attestation.cbor import build_cbor, parse_cbor
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.tpm.payload import MAX_EVENT_LOG, TpmPayload, build_app_pcr, build_qualifying_data
from cloister.attestation.verifiers.tpm import verify_tpm
from cloister.errors import CloisterError, DecodeError, VerificationError

REPORT_DATA = hashlib.sha512(b"report").digest()
TPM = TpmAuthority.create()
OTHER = TpmAuthority.create("other", machine="other")
NEIGHBOUR = TpmAuthority.create(machine="neighbour")
HONEST = TPM.parts(REPORT_DATA)
PAYLOAD = encode(HONEST).payload


def verify(payload: bytes, collateral: Collateral | None = None, now: int = NOW):
    return verify_tpm(payload, TPM.collateral() if collateral is None else collateral, now)


def resigned(**fields: object) -> TpmPayload:
    """Honest but for these fields of the quote, which the true attestation key signed."""
    attest = Attest(**({"extra_data": build_qualifying_data(REPORT_DATA), "pcrs": HONEST.pcrs} | fields)).encode()
    return replace(HONEST, attest=attest, signature=sign_attest(TPM.ak, attest))


def member(key: int, value: object) -> bytes:
    """The payload with one member replaced, or added."""
    return build_cbor(parse_cbor(PAYLOAD) | {key: value})


def without(key: int) -> bytes:
    return build_cbor({k: v for k, v in parse_cbor(PAYLOAD).items() if k != key})


def quoted(pcrs: dict[int, bytes]) -> TpmPayload:
    """The true TPM quotes these registers, with these values."""
    return replace(resigned(pcrs=pcrs), pcrs=pcrs)


def log(change: Callable[[bytes], bytes]) -> TpmPayload:
    return replace(HONEST, event_log=change(HONEST.event_log))


def endorsed_by_ed25519() -> TpmPayload:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    return replace(HONEST, ek_certificate=TPM.issue_ek(key=key))


PCRS = dict(HONEST.pcrs)
RECORDS = Boot().records()
STRAY = record(0, 5, b"x", b"x")

MUTATIONS: dict[str, tuple[Callable[[], bytes | TpmPayload], str]] = {
    # form
    "empty map": (lambda: build_cbor({}), "evidence-malformed"),
    "an array": (lambda: build_cbor([1, 2, 3]), "evidence-malformed"),
    "no cbor": (lambda: b"\xff" * 100, "evidence-malformed"),
    "cut short": (lambda: PAYLOAD[:-1], "evidence-malformed"),
    "a byte behind": (lambda: PAYLOAD + b"\0", "evidence-malformed"),
    "no app digest": (lambda: without(9), "evidence-malformed"),
    "no event log": (lambda: without(7), "evidence-malformed"),
    "a tenth member": (lambda: member(10, b""), "evidence-malformed"),
    "version 2": (lambda: member(1, 2), "evidence-version"),
    "version true": (lambda: member(1, True), "evidence-malformed"),
    "text for a quote": (lambda: member(4, "quote"), "evidence-malformed"),
    "report data of 63 bytes": (lambda: member(8, bytes(63)), "evidence-malformed"),
    "app digest of 31 bytes": (lambda: member(9, bytes(31)), "evidence-malformed"),
    "a long certificate": (lambda: member(2, bytes(5000)), "evidence-malformed"),
    "a log over the cap": (lambda: member(7, bytes(MAX_EVENT_LOG + 1)), "evidence-malformed"),
    "register 24": (lambda: member(6, PCRS | {24: bytes(32)}), "evidence-malformed"),
    "a register of 20 bytes": (lambda: member(6, PCRS | {0: bytes(20)}), "evidence-malformed"),
    "no registers": (lambda: member(6, {}), "evidence-malformed"),
    # certificates
    "certificates swapped": (
        lambda: replace(HONEST, ak_certificate=HONEST.ek_certificate, ek_certificate=HONEST.ak_certificate),
        "certificate-purpose",
    ),
    "attestation certificate twice": (
        lambda: replace(HONEST, ek_certificate=HONEST.ak_certificate),
        "certificate-purpose",
    ),
    "garbage for a certificate": (
        lambda: replace(HONEST, ak_certificate=b"\x30\x03\x02\x01\x01"),
        "certificate-malformed",
    ),
    "a byte behind a certificate": (
        lambda: replace(HONEST, ak_certificate=HONEST.ak_certificate + b"\0"),
        "certificate-malformed",
    ),
    "another network's TPM": (lambda: OTHER.parts(REPORT_DATA), "untrusted-root"),
    "another network's endorsement certificate": (
        lambda: replace(HONEST, ek_certificate=OTHER.ek_certificate),
        "untrusted-root",
    ),
    "another network's attestation certificate": (
        lambda: replace(OTHER.parts(REPORT_DATA), ek_certificate=HONEST.ek_certificate),
        "untrusted-root",
    ),
    "the neighbour's endorsement certificate": (
        lambda: replace(HONEST, ek_certificate=NEIGHBOUR.ek_certificate),
        "ak-not-bound",
    ),
    "bound to nothing": (lambda: replace(HONEST, ak_certificate=TPM.issue_ak(bound_to=None)), "ak-not-bound"),
    "bound in capitals": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(bound_to=verify(PAYLOAD).platform.hex().upper())),
        "ak-not-bound",
    ),
    "bound twice": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(bound_to=(verify(PAYLOAD).platform.hex(), "00"))),
        "ak-not-bound",
    ),
    "attestation certificate of an authority": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(replace(AK_USAGE, authority=True))),
        "certificate-not-end-entity",
    ),
    "attestation certificate for servers": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(replace(AK_USAGE, purposes=EK_USAGE.purposes))),
        "certificate-purpose",
    ),
    "attestation certificate for anything": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(replace(AK_USAGE, purposes=()))),
        "certificate-purpose",
    ),
    "attestation key that may not sign": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(replace(AK_USAGE, sign=False, encipher=True))),
        "certificate-purpose",
    ),
    "endorsement key that signs": (
        lambda: replace(HONEST, ek_certificate=TPM.issue_ek(replace(EK_USAGE, sign=True, encipher=False))),
        "certificate-purpose",
    ),
    "endorsement certificate of an authority": (
        lambda: replace(HONEST, ek_certificate=TPM.issue_ek(replace(EK_USAGE, authority=True))),
        "certificate-not-end-entity",
    ),
    "attestation certificate expired": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(end=NOW - 1)),
        "certificate-expired",
    ),
    "endorsement certificate expired": (
        lambda: replace(HONEST, ek_certificate=TPM.issue_ek(end=NOW - 1)),
        "certificate-expired",
    ),
    "attestation certificate of tomorrow": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(start=NOW + 1)),
        "certificate-not-yet-valid",
    ),
    "an unknown critical extension": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(replace(AK_USAGE, critical=("1.2.3.4",)))),
        "certificate-malformed",
    ),
    "a key of another curve": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(key=elliptic_key("k", ec.SECP384R1()).public_key())),
        "ak-key-type",
    ),
    "an endorsement key of Ed25519": (endorsed_by_ed25519, "ek-key-type"),
    "an Ed25519 key": (
        lambda: replace(
            HONEST,
            ak_certificate=TPM.issue_ak(key=ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
        ),
        "ak-key-type",
    ),
    "a small RSA key": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(key=rsa.generate_private_key(65537, 1024).public_key())),  # noqa: S505
        "ak-key-type",
    ),
    "RSA with exponent 3": (
        lambda: replace(HONEST, ak_certificate=TPM.issue_ak(key=rsa.generate_private_key(3, 2048).public_key())),
        "ak-key-type",
    ),
    # signature and quote
    "the neighbour's signature": (
        lambda: replace(HONEST, signature=sign_attest(NEIGHBOUR.ak, HONEST.attest)),
        "quote-signature",
    ),
    "the endorsement key's signature": (
        lambda: replace(HONEST, signature=sign_attest(TPM.ek, HONEST.attest)),
        "quote-signature",
    ),
    "a signature of zeros": (
        lambda: replace(HONEST, signature=HONEST.signature[:4] + sized(bytes(32)) * 2),
        "quote-signature",
    ),
    "an RSA signature by an elliptic key": (
        lambda: replace(HONEST, signature=struct.pack(">HH", 0x14, 11) + sized(bytes(256))),
        "quote-signature",
    ),
    "SHA-1 named in the signature": (
        lambda: replace(HONEST, signature=HONEST.signature[:2] + b"\0\x04" + HONEST.signature[4:]),
        "signature-scheme",
    ),
    "an unknown scheme": (lambda: replace(HONEST, signature=b"\0\x1a" + HONEST.signature[2:]), "signature-scheme"),
    "a byte behind the signature": (lambda: replace(HONEST, signature=HONEST.signature + b"\0"), "signature-malformed"),
    "a signature's length of 65535": (
        lambda: replace(HONEST, signature=HONEST.signature[:4] + b"\xff\xff" + HONEST.signature[6:]),
        "signature-malformed",
    ),
    "a cut signature": (lambda: replace(HONEST, signature=HONEST.signature[:-1]), "signature-malformed"),
    "not made by a TPM": (lambda: resigned(magic=0xFF544348), "quote-magic"),
    "a certification of a key": (lambda: resigned(type=0x8017), "quote-type"),
    "a certification of time": (lambda: resigned(type=0x8019), "quote-type"),
    "a clock neither safe nor unsafe": (lambda: resigned(safe=2), "quote-malformed"),
    "a byte behind the quote": (lambda: resigned(tail=b"\0"), "quote-malformed"),
    "a signer without a name": (lambda: resigned(signer=b""), "quote-malformed"),
    "a signer's name of another size": (lambda: resigned(signer=b"\0\x0b" + bytes(31)), "quote-malformed"),
    "another nonce": (lambda: resigned(extra_data=build_qualifying_data(bytes(64))), "quote-binding"),
    "report data itself as nonce": (lambda: resigned(extra_data=REPORT_DATA), "quote-binding"),
    "no nonce": (lambda: resigned(extra_data=b""), "quote-binding"),
    "a long nonce": (lambda: resigned(extra_data=bytes(67)), "quote-malformed"),
    "other report data": (lambda: replace(HONEST, report_data=bytes(64)), "quote-binding"),
    # registers
    "the SHA-1 bank": (lambda: resigned(selection=select_pcrs(PCRS, bank=4)), "quote-selection"),
    "two banks": (
        lambda: resigned(selection=struct.pack(">I", 2) + select_pcrs(PCRS)[4:] + select_pcrs(PCRS, bank=4)[4:]),
        "quote-selection",
    ),
    "no bank": (lambda: resigned(selection=bytes(4)), "quote-selection"),
    "banks without end": (lambda: resigned(selection=b"\xff" * 4 + select_pcrs(PCRS)[4:]), "quote-selection"),
    "a selection of four bytes": (lambda: resigned(selection=select_pcrs(PCRS, size=4)), "quote-selection"),
    "a selection of two bytes": (lambda: resigned(selection=select_pcrs(PCRS, size=2)), "quote-selection"),
    "a selection of nothing": (lambda: resigned(selection=select_pcrs(())), "quote-selection"),
    "a selection without the kernel": (
        lambda: resigned(selection=select_pcrs([i for i in PCRS if i != 4])),
        "quote-selection",
    ),
    "the kernel not quoted": (lambda: quoted({i: v for i, v in PCRS.items() if i != 4}), "quote-selection"),
    "the app not quoted": (lambda: quoted({i: v for i, v in PCRS.items() if i != 15}), "quote-selection"),
    "a register too many": (lambda: quoted(PCRS | {16: bytes(32)}), "quote-selection"),
    "the debug register for the app's": (
        lambda: quoted({i: v for i, v in PCRS.items() if i != 15} | {16: PCRS[15]}),
        "quote-selection",
    ),
    "a value too many": (lambda: replace(HONEST, pcrs=PCRS | {1: bytes(32)}), "quote-selection"),
    "a value missing": (lambda: replace(HONEST, pcrs={i: v for i, v in PCRS.items() if i != 9}), "quote-selection"),
    "another kernel's value": (lambda: replace(HONEST, pcrs=PCRS | {4: bytes(32)}), "quote-pcr-digest"),
    "two values swapped": (lambda: replace(HONEST, pcrs=PCRS | {0: PCRS[2], 2: PCRS[0]}), "quote-pcr-digest"),
    "a digest of SHA-384's size": (lambda: resigned(digest=bytes(48)), "quote-malformed"),
    "another digest": (lambda: resigned(digest=bytes(32)), "quote-pcr-digest"),
    # app
    "another app": (lambda: replace(HONEST, app_digest=bytes(32)), "app-register-mismatch"),
    "no app measured": (lambda: TPM.parts(REPORT_DATA, pcrs={15: bytes(32)}), "app-register-mismatch"),
    "two apps measured": (
        lambda: TPM.parts(REPORT_DATA, pcrs={15: sha256(build_app_pcr(bytes(32)) + APP_DIGEST)}),
        "app-register-mismatch",
    ),
    "the same app measured twice": (
        lambda: TPM.parts(REPORT_DATA, pcrs={15: sha256(build_app_pcr(APP_DIGEST) + APP_DIGEST)}),
        "app-register-mismatch",
    ),
    "the digest as the register": (lambda: TPM.parts(REPORT_DATA, pcrs={15: APP_DIGEST}), "app-register-mismatch"),
    # event log
    "an event too many": (lambda: log(lambda data: data + STRAY), "event-log-mismatch"),
    "the last event missing": (lambda: log(lambda data: data[: -len(record(*RECORDS[-1]))]), "event-log-mismatch"),
    "two events swapped": (
        lambda: log(
            lambda data: data.replace(
                record(*RECORDS[-2]) + record(*RECORDS[-1]), record(*RECORDS[-1]) + record(*RECORDS[-2])
            )
        ),
        "event-log-mismatch",
    ),
    "the log of another boot": (
        lambda: replace(HONEST, event_log=Boot(kernel=b"other").log()),
        "event-log-mismatch",
    ),
    "another locality": (lambda: replace(HONEST, event_log=Boot(locality=3).log()), "event-log-mismatch"),
    "a register that the log did not fill": (lambda: TPM.parts(REPORT_DATA, pcrs={9: bytes(32)}), "event-log-mismatch"),
    "an event made informative": (
        lambda: log(lambda data: data.replace(struct.pack("<II", 4, 0x80000003), struct.pack("<II", 4, 3))),
        "event-log-mismatch",
    ),
    "a log of zeros": (lambda: log(lambda data: bytes(len(data))), "event-log-malformed"),
    "a log's head alone cut": (lambda: log(lambda data: data[:40]), "event-log-malformed"),
    "an event cut": (lambda: log(lambda data: data[:-1]), "event-log-malformed"),
    "a log without SHA-256": (
        lambda: log(lambda data: data.replace(log_head(), log_head([(4, 20), (12, 48)]))),
        "event-log-malformed",
    ),
    "an event that claims 4 GiB": (
        lambda: log(lambda data: data + STRAY[:-5] + b"\xff\xff\xff\xff" + b"x"),
        "event-log-malformed",
    ),
    "an event with a million digests": (
        lambda: log(lambda data: data + STRAY[:8] + struct.pack("<I", 1_000_000) + STRAY[12:]),
        "event-log-malformed",
    ),
    "an event of register 24": (lambda: log(lambda data: data + record(24, 5, b"x", b"x")), "event-log-malformed"),
    "a thousand events": (lambda: log(lambda data: data + STRAY * 1000), "event-log-malformed"),
    "a locality told late": (
        lambda: log(lambda data: data + record(0, 3, b"", b"StartupLocality\0\x03", digest=bytes(32))),
        "event-log-malformed",
    ),
    "a locality of 7": (
        lambda: replace(HONEST, event_log=Boot(locality=0).log().replace(b"ity\0\0", b"ity\0\7")),
        "event-log-malformed",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_refused_by_name(name):
    change, code = MUTATIONS[name]
    changed = change()
    payload = changed if isinstance(changed, bytes) else encode(changed).payload
    with pytest.raises((DecodeError, VerificationError)) as refusal:
        verify(payload)
    assert refusal.value.code == code, refusal.value.message


def test_honest_parts_pass():
    assert verify(PAYLOAD).measurement == TPM.measurement()
    assert verify(encode(resigned()).payload).app_digest == APP_DIGEST


ROOTS: dict[str, tuple[Callable[[], tuple[Collateral, int]], str]] = {
    "no root": (lambda: (Collateral(), NOW), "no-trusted-root"),
    "a root for another kind": (lambda: (Collateral(((EvidenceKind.SNP, TPM.root),)), NOW), "no-trusted-root"),
    "another root of the same name": (lambda: (OTHER.collateral(), NOW), "untrusted-root"),
    "garbage for a root": (lambda: (Collateral(((EvidenceKind.TPM, b"root"),)), NOW), "certificate-malformed"),
    "a root that is no authority": (
        lambda: (Collateral(((EvidenceKind.TPM, TPM.issue_root(authority=False)),)), NOW),
        "certificate-not-authority",
    ),
    "the attestation certificate as root": (
        lambda: (Collateral(((EvidenceKind.TPM, TPM.ak_certificate),)), NOW),
        "untrusted-root",
    ),
    "a root that expired": (
        lambda: (Collateral(((EvidenceKind.TPM, TPM.issue_root(end=NOW - 1)),)), NOW),
        "certificate-expired",
    ),
    "a root of tomorrow": (
        lambda: (Collateral(((EvidenceKind.TPM, TPM.issue_root(start=NOW + 1)),)), NOW),
        "certificate-not-yet-valid",
    ),
    "a clock two days ahead": (lambda: (TPM.collateral(), NOW + 2 * DAY), "certificate-expired"),
    "a clock two days back": (lambda: (TPM.collateral(), NOW - 2 * DAY), "certificate-not-yet-valid"),
    "attestation key revoked": (lambda: (TPM.collateral(TPM.revoke("ak")), NOW), "certificate-revoked"),
    "endorsement key revoked": (lambda: (TPM.collateral(TPM.revoke("ek")), NOW), "certificate-revoked"),
    "revoked by a list that ran out": (
        lambda: (TPM.collateral(TPM.revoke("ek", end=NOW - 1), TPM.revoke()), NOW),
        "certificate-revoked",
    ),
    "only a list that ran out": (lambda: (TPM.collateral(TPM.revoke(end=NOW - 1)), NOW), "collateral-expired"),
    "only a list of tomorrow": (lambda: (TPM.collateral(TPM.revoke(start=NOW + 1)), NOW), "collateral-expired"),
    "garbage for a list": (lambda: (TPM.collateral(b"list"), NOW), "collateral-malformed"),
    "a list of a megabyte": (lambda: (TPM.collateral(bytes(1 << 20)), NOW), "collateral-malformed"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_collateral_that_does_not_hold(name):
    collateral, now = ROOTS[name][0]()
    with pytest.raises((DecodeError, VerificationError)) as refusal:
        verify(PAYLOAD, collateral, now)
    assert refusal.value.code == ROOTS[name][1], refusal.value.message


def test_a_certificate_signed_over_sha1_is_not_issued():
    with pytest.raises(VerificationError) as refusal:
        verify(encode(replace(HONEST, ak_certificate=sha1_certificate())).payload)
    assert refusal.value.code == "untrusted-root"


def sha1_certificate() -> bytes:
    """The honest certificate with ECDSA-with-SHA1 named inside and out, signed so by the true root."""
    sha256_oid, sha1_oid = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06072a8648ce3d0401")
    body = x509.load_der_x509_certificate(TPM.ak_certificate).tbs_certificate_bytes
    inner = body.replace(b"\x30\x0a" + sha256_oid, b"\x30\x09" + sha1_oid)
    inner = inner[:2] + (len(inner) - 4).to_bytes(2, "big") + inner[4:]
    signature = TPM.root_key.sign(inner, ec.ECDSA(hashes.SHA1()))  # noqa: S303
    outer = inner + b"\x30\x09" + sha1_oid + b"\x03" + bytes([len(signature) + 1]) + b"\0" + signature
    return b"\x30\x82" + len(outer).to_bytes(2, "big") + outer


def test_no_changed_byte_goes_unseen():
    """One bit of every byte, of every fifth in the log. What may pass lies in parts of the log that no quote covers, and it
    moves no register.
    """
    start = PAYLOAD.index(HONEST.event_log)
    log_bytes = range(start, start + len(HONEST.event_log))
    honest = verify(PAYLOAD)
    codes = set()
    for position in range(len(PAYLOAD)):
        if position in log_bytes and position % 5:
            continue
        changed = bytearray(PAYLOAD)
        changed[position] ^= 1 << position % 8
        try:
            claims = verify(bytes(changed))
        except (DecodeError, VerificationError) as refusal:
            codes.add(refusal.code)
        else:
            assert position in log_bytes, position
            assert (claims.measurement, claims.registers) == (honest.measurement, honest.registers)
    assert not codes & {"malformed", "verification-failed", "remote"}, "every refusal has a name of its own"
    assert len(codes) > 8


def test_no_changed_digest_of_a_boot_event_goes_unseen():
    seen = 0
    for pcr, _, measured, _ in RECORDS:
        if pcr in PCRS:
            digest = sha256(measured)
            changed = HONEST.event_log.replace(digest, bytes([digest[0] ^ 1]) + digest[1:])
            assert changed != HONEST.event_log
            with pytest.raises(VerificationError, match="does not account") as refusal:
                verify(encode(replace(HONEST, event_log=changed)).payload)
            assert refusal.value.code == "event-log-mismatch"
            seen += 1
    assert seen > 8


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_by_name(data):
    with pytest.raises((DecodeError, VerificationError)):
        verify(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_splice_is_refused_or_changes_nothing(data):
    start = data.draw(st.integers(0, len(PAYLOAD)))
    end = data.draw(st.integers(start, min(start + 64, len(PAYLOAD))))
    changed = PAYLOAD[:start] + data.draw(st.binary(max_size=64)) + PAYLOAD[end:]
    try:
        claims = verify(changed)
    except (DecodeError, VerificationError):
        return
    assert (claims.measurement, claims.app_digest) == (TPM.measurement(), APP_DIGEST)


@settings(max_examples=120, deadline=None)
@given(
    key=st.integers(1, 9),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=80) | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 30) | st.text(max_size=3), inner, max_size=4)
        ),
        max_leaves=8,
    ),
)
def test_any_member_is_refused_by_name(key, value):
    payload = member(key, value)
    if payload == PAYLOAD:
        return
    with pytest.raises((DecodeError, VerificationError)):
        verify(payload)


def test_refusals_are_quick_and_quote_little():
    """Sizes that are claimed cost nothing, and foreign bytes do not come back in messages."""
    large = bytes(100 << 20)
    started = time.process_time()
    for payload in (
        b"\x5b" + b"\xff" * 8,
        b"\x9b" + b"\xff" * 8,
        b"\xbb" + b"\xff" * 8,
        large,
        b"\xa1\x01" + b"\x81" * 100_000,
    ):
        with pytest.raises(CloisterError) as refusal:
            verify(payload)
        assert len(str(refusal.value)) < 200
    assert time.process_time() - started < 5, "a bound against hanging, not a measure of speed"
