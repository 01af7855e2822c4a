"""Receipts: what verifies, and everything that must not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import cbor2
import coincurve
import pytest
from Crypto.Hash import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.countersigner import countersign, entry_of, prove
from tests.unit.attestation.platform import BINDING, COLLATERAL, DAY, NOW, POLICY, evidence

from cloister.attestation.assurance import SIMULATED_WARNING
from cloister.attestation.cbor import Tagged, build_cbor, parse_cbor
from cloister.attestation.countersignature import Judgement, LogProof, SessionFacts, receipt_digest
from cloister.attestation.evidence import Evidence
from cloister.attestation.receipt import (
    BulkUse,
    DatasetUse,
    InputDigest,
    ReceiptClaims,
    VerifiedReceipt,
    build_receipt,
    parse_receipt,
    verify_receipt,
)
from cloister.attestation.report import build_report_data
from cloister.attestation.transparency import LogOrigin
from cloister.attestation.verify import read_claims
from cloister.errors import CloisterError, DecodeError, LocalError, RemoteError, TooLarge
from cloister.protocol.signatures import PrivateKey

SIGNER = coincurve.PrivateKey(b"\x21" * 32)
PUBLIC = SIGNER.public_key.format(compressed=False)[1:]
SMS = PrivateKey(b"\x51" * 32)
BOUND = replace(BINDING, sms=SMS.address.raw, challenge=keccak.new(digest_bits=256, data=PUBLIC).digest()[12:])
MACHINE = read_claims(evidence(build_report_data(BOUND)), COLLATERAL, NOW).platform


def sign(digest: bytes) -> bytes:
    signature: bytes = SIGNER.sign_recoverable(digest, hasher=None)
    return signature


def claims(**other: object) -> ReceiptClaims:
    base = ReceiptClaims(
        binding=BOUND,
        public_key=PUBLIC,
        deal_id=b"\x31" * 32,
        index=3,
        worker=b"\x32" * 20,
        requester=b"\x33" * 20,
        app=b"\x34" * 20,
        dataset=DatasetUse(b"\x35" * 20, b"\x36" * 32, b"\x37" * 32, None),
        inputs=(InputDigest("0xabc", b"\x38" * 32),),
        result_digest=b"\x39" * 32,
        output_digest=b"\x3a" * 32,
        started_at=NOW,
        finished_at=NOW + 5,
        evidence=evidence(build_report_data(BOUND)),
    )
    return replace(base, **other)  # type: ignore[arg-type]


def facts(given: ReceiptClaims, **other: object) -> SessionFacts:
    """What an honest SMS knows of the session in which these claims were made."""
    base = SessionFacts(
        task_id=given.binding.task_id,
        challenge=given.binding.challenge,
        evidence_kind=given.evidence.kind.value,
        evidence_digest=hashlib.sha256(given.evidence.payload).digest(),
        judgement=Judgement(None, (), MACHINE, given.started_at, b"\x0f" * 32),
        dataset=given.dataset,
        bulk=None if given.bulk is None else tuple((item.address, item.released) for item in given.bulk),
    )
    return replace(base, **other)  # type: ignore[arg-type]


def receipt(
    given: ReceiptClaims,
    signer: Callable[[bytes], bytes] = sign,
    *,
    about: SessionFacts | None = None,
    key: PrivateKey = SMS,
    **other: object,
) -> bytes:
    """A receipt of these claims; the keywords change what the SMS states (``tests.support.countersigner``)."""
    values = {"chain_id": BOUND.chain_id, "hub": BOUND.hub, "issued_at": max(NOW + 5, given.started_at)} | other
    return build_receipt(
        given,
        signer,
        lambda digest: countersign(about or facts(given), digest, key, **values),  # type: ignore[arg-type]
    )


def verify(encoded: bytes, **other: object) -> VerifiedReceipt:
    arguments = {"policy": POLICY, "collateral": COLLATERAL, "now": NOW + 10} | other
    return verify_receipt(encoded, **arguments)  # type: ignore[arg-type]


ITEMS = (
    BulkUse(b"\x41" * 20, DatasetUse(b"\x41" * 20, b"\x42" * 32, b"\x43" * 32, b"\x44" * 32), b"\x45" * 32),
    BulkUse(b"\x46" * 20, None, None, "order-closed"),
    BulkUse(b"\x47" * 20, DatasetUse(b"\x47" * 20, b"\x48" * 32), None, "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"),
)

SOUND = receipt(claims())
BULK = receipt(claims(dataset=None, bulk=ITEMS))


@pytest.mark.parametrize(
    "given",
    [
        claims(),
        claims(dataset=None),
        claims(inputs=()),
        claims(cause="APP_COMPUTE_FAILED"),
        claims(dataset=DatasetUse(b"\x35" * 20, b"\x36" * 32, None, b"\x37" * 32)),
        claims(dataset=None, bulk=()),
        claims(dataset=None, bulk=ITEMS),
        claims(dataset=None, bulk=ITEMS[:1] * 100),
    ],
)
def test_round_trip(given: ReceiptClaims) -> None:
    encoded = receipt(given)
    assert parse_receipt(encoded).claims == given
    verified = verify(encoded, expected_result_digest=b"\x39" * 32)
    assert verified.claims == given
    assert verified.warning == SIMULATED_WARNING


def test_years_later_when_the_certificates_are_over() -> None:
    assert verify(SOUND, now=NOW + 4000 * DAY).simulated


def test_it_is_a_cose_sign1_for_other_readers() -> None:
    tagged = cbor2.loads(SOUND)
    assert tagged.tag == 18
    protected, unprotected, payload, signature = tagged.value
    assert cbor2.loads(protected) == {1: -47}
    assert set(unprotected) == {"countersignature"}
    assert cbor2.loads(unprotected["countersignature"]).tag == 18
    values = cbor2.loads(payload)
    assert values[265] == "urn:cloister:receipt:2"
    assert values["report_data"] == build_report_data(BOUND)
    assert values["simulated"] is True
    message = cbor2.dumps(["Signature1", protected, b"", payload])
    # An ECDSA library of another make would take r and s as they stand.
    der = coincurve.ecdsa.cdata_to_der(coincurve.ecdsa.deserialize_compact(signature))
    assert SIGNER.public_key.verify(der, message)


def test_a_verified_receipt_cannot_be_made_by_hand() -> None:
    verified = verify(SOUND)
    with pytest.raises(LocalError):
        VerifiedReceipt(verified.receipt, verified.appraisal, verified.statement, verified.head, object())


def test_claims_put_into_a_parsed_receipt_are_not_believed() -> None:
    forged = replace(parse_receipt(SOUND), claims=claims(requester=b"\xee" * 20))
    verified = verify_receipt(forged, policy=POLICY, collateral=COLLATERAL, now=NOW + 10)
    assert verified.claims.requester == b"\x33" * 20


def altered(change: Callable[[dict[object, object]], object], encoded: bytes = SOUND) -> bytes:
    """The receipt with changed claims, signed by the enclave's own key; the countersignature is the old one."""
    tagged = parse_cbor(encoded)
    assert isinstance(tagged, Tagged)
    assert isinstance(tagged.value, list)
    protected, unprotected, payload, _ = tagged.value
    values = parse_cbor(payload)  # type: ignore[arg-type]
    change(values)  # type: ignore[arg-type]
    new = build_cbor(values)
    signature = sign(hashlib.sha256(build_cbor(["Signature1", protected, b"", new])).digest())[:64]
    return build_cbor(Tagged(18, [protected, unprotected, new, signature]))


def whole(position: int, value: object) -> bytes:
    tagged = parse_cbor(SOUND)
    assert isinstance(tagged, Tagged)
    assert isinstance(tagged.value, list)
    parts = list(tagged.value)
    parts[position] = value  # type: ignore[call-overload]
    return build_cbor(Tagged(18, parts))


OTHER_KEY = coincurve.PrivateKey(b"\x22" * 32)


def signed_by_another() -> bytes:
    public = OTHER_KEY.public_key.format(compressed=False)[1:]
    return receipt(claims(public_key=public), lambda d: OTHER_KEY.sign_recoverable(d, hasher=None))


def high_s() -> bytes:
    signature = parse_receipt(SOUND).signature
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    return whole(3, signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big"))


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "signed by another key, named so": (lambda: verify(signed_by_another()), "receipt-key"),
    "signed by another key, not named": (
        lambda: verify(receipt(claims(), lambda d: OTHER_KEY.sign_recoverable(d, hasher=None))),
        "receipt-signature",
    ),
    "high s": (lambda: verify(high_s()), "receipt-signature"),
    "signature of zeros": (lambda: verify(whole(3, bytes(64))), "receipt-signature"),
    "signature cut": (lambda: verify(whole(3, bytes(63))), "receipt-malformed"),
    "another algorithm": (lambda: verify(whole(0, build_cbor({1: -7}))), "receipt-malformed"),
    "header that is not protected": (lambda: verify(whole(1, {1: -47})), "receipt-malformed"),
    "bytes behind": (lambda: verify(SOUND + b"\0"), "trailing-bytes"),
    "no tag": (lambda: verify(SOUND[1:]), "receipt-malformed"),
    "another tag": (lambda: verify(b"\xd1" + SOUND[1:]), "receipt-malformed"),
    "over the cap": (lambda: verify(bytes(800_000)), "too-large"),
    "evidence of another task": (
        lambda: verify(receipt(claims(evidence=evidence(build_report_data(BINDING))))),
        "report-data-mismatch",
    ),
    "evidence in debug mode": (
        lambda: verify(receipt(claims(evidence=evidence(build_report_data(BOUND), debug=True)))),
        "debug-enabled",
    ),
    "evidence older than the run": (
        lambda: verify(receipt(claims(started_at=NOW + 1000, finished_at=NOW + 1001)), now=NOW + 2000),
        "evidence-stale",
    ),
    "ended before it began": (lambda: verify(receipt(claims(finished_at=NOW - 1))), "receipt-times"),
    "from the future": (lambda: verify(SOUND, now=NOW - 1000), "receipt-times"),
    "another result": (lambda: verify(SOUND, expected_result_digest=bytes(32)), "receipt-result"),
    "policy without measurements": (
        lambda: verify(SOUND, policy=replace(POLICY, measurements=frozenset())),
        "no-reference-values",
    ),
    "says it is not simulated": (
        lambda: verify(altered(lambda v: v.update({"simulated": False}))),
        "receipt-malformed",
    ),
    "other report data": (lambda: verify(altered(lambda v: v.update({"report_data": bytes(64)}))), "receipt-malformed"),
    "another profile": (lambda: verify(altered(lambda v: v.update({265: "urn:other"}))), "receipt-malformed"),
    "a claim more": (lambda: verify(altered(lambda v: v.update({"extra": 1}))), "receipt-malformed"),
    "a claim less": (lambda: verify(altered(lambda v: v.pop("cause"))), "receipt-malformed"),
    "short hub": (lambda: verify(altered(lambda v: v.update({"hub": bytes(19)}))), "receipt-malformed"),
    "index as text": (lambda: verify(altered(lambda v: v.update({"index": "3"}))), "receipt-malformed"),
    "index as truth": (lambda: verify(altered(lambda v: v.update({"index": True}))), "receipt-malformed"),
    "negative time": (lambda: verify(altered(lambda v: v.update({"started_at": -1}))), "receipt-malformed"),
    "chain id of 33 bytes": (
        lambda: verify(altered(lambda v: v.update({"chain_id": b"\x01" * 33}))),
        "receipt-malformed",
    ),
    "chain id with a leading zero": (
        lambda: verify(altered(lambda v: v.update({"chain_id": b"\x00\x01"}))),
        "receipt-malformed",
    ),
    "dataset of three": (lambda: verify(altered(lambda v: v.update({"dataset": [bytes(20)]}))), "receipt-malformed"),
    "input without a name": (
        lambda: verify(altered(lambda v: v.update({"inputs": [["", bytes(32)]]}))),
        "receipt-malformed",
    ),
    "1,001 inputs": (
        lambda: verify(altered(lambda v: v.update({"inputs": [["a", bytes(32)]] * 1001}))),
        "receipt-malformed",
    ),
    "unknown evidence": (lambda: verify(altered(lambda v: v.update({"evidence": ["x", b"y"]}))), "evidence-kind"),
    "key on another curve": (
        lambda: verify(altered(lambda v: v.update({8: {1: {1: 2, -1: 1, -2: PUBLIC[:32], -3: PUBLIC[32:]}}}))),
        "receipt-malformed",
    ),
    **{
        f"slice with {what}": (
            lambda item=item: verify(altered(lambda v: v.update({"bulk": item}), BULK)),
            "receipt-malformed",
        )
        for what, item in {
            "101 items": [[b"\x46" * 20, None, None, "x"]] * 101,
            "no list": {},
            "null": None,
            "an item of three": [[b"\x46" * 20, None, None]],
            "a short address": [[b"\x46" * 19, None, None, "x"]],
            "a short hash": [[b"\x41" * 20, [b"\x41" * 20, b"\x42" * 32, None, None], b"\x45" * 31, None]],
            "neither data nor cause": [[b"\x46" * 20, None, None, None]],
            "both data and cause": [[b"\x41" * 20, [b"\x41" * 20, b"\x42" * 32, None, None], b"\x45" * 32, "x"]],
            "data that was not released": [[b"\x46" * 20, None, b"\x45" * 32, None]],
            "data of another address": [[b"\x41" * 20, [b"\x42" * 20, b"\x42" * 32, None, None], b"\x45" * 32, None]],
            "a cause of no length": [[b"\x46" * 20, None, None, ""]],
            "a cause too long": [[b"\x46" * 20, None, None, "x" * 257]],
        }.items()
    },
    "a slice beside a dataset": (lambda: verify(altered(lambda v: v.update({"bulk": []}))), "receipt-malformed"),
    "cause of no length": (lambda: verify(altered(lambda v: v.update({"cause": ""}))), "receipt-malformed"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_by_name(name: str) -> None:
    action, code = REFUSED[name]
    with pytest.raises(CloisterError) as refusal:
        action()
    assert refusal.value.code == code
    assert isinstance(refusal.value, RemoteError)


def test_every_flipped_byte_is_refused_and_its_part_is_named() -> None:
    blamed: dict[str, int] = {}
    for position in range(len(SOUND)):
        changed = bytearray(SOUND)
        changed[position] ^= 0x40
        with pytest.raises(RemoteError) as refusal:
            verify(bytes(changed))
        assert refusal.value.part, (position, refusal.value)
        blamed[refusal.value.part] = blamed.get(refusal.value.part, 0) + 1
    parts = {part.partition(".")[0] for part in blamed}
    assert {"header", "claims", "countersignature", "log proof", "claims or enclave signature"} == parts, blamed
    # What the SMS states as well, or what follows from other claims, is named to the claim.
    named = {"claims.evidence", "claims.dataset", "claims.report_data", "claims.eat_profile", "claims.cnf"}
    assert named <= set(blamed), sorted(blamed.items())
    assert blamed["claims.evidence"] > 300


OTHER_SMS = PrivateKey(b"\x52" * 32)
ORIGIN = LogOrigin(BOUND.chain_id, BOUND.hub, SMS.address.raw)


def log_of(entry: bytes, index: int = 1, **other: object) -> LogProof:
    """A sound proof of some entry, with members changed afterwards."""
    return replace(prove(entry, index, [b"a", b"b"], ORIGIN, NOW + 5, SMS), **other)  # type: ignore[arg-type]


ENTRY = entry_of(facts(claims()), 1)
HASH = b"\x66" * 32
STATED: dict[str, tuple[Callable[[], object], str, str]] = {
    # name: receipt, code, part
    "countersigned by another sms": (
        lambda: receipt(claims(), key=OTHER_SMS), "countersignature", "countersignature.sms"
    ),
    "another sms's signature under our name": (
        lambda: build_receipt(
            claims(), sign, lambda d: countersign(
                facts(claims()), d, SMS, chain_id=BOUND.chain_id, hub=BOUND.hub, issued_at=NOW + 5, signer=OTHER_SMS
            )
        ), "countersignature", "countersignature"
    ),
    "another sms named, signed by ours": (
        lambda: receipt(claims(), origin=LogOrigin(BOUND.chain_id, BOUND.hub, OTHER_SMS.address.raw)),
        "countersignature", "countersignature.sms",
    ),
    "another chain": (lambda: receipt(claims(), chain_id=1), "countersignature-disagrees", "claims.chain_id"),
    "another hub": (lambda: receipt(claims(), hub=bytes(20)), "countersignature-disagrees", "claims.hub"),
    **{
        f"another {name}": (
            lambda change=change: receipt(claims(), about=facts(claims(), **change)),  # type: ignore[misc]
            "countersignature-disagrees", f"claims.{part}",
        )
        for name, part, change in (
            ("task", "task_id", {"task_id": HASH}),
            ("enclave", "challenge", {"challenge": bytes(20)}),
            ("kind of evidence", "evidence", {"evidence_kind": "tdx"}),
            ("evidence", "evidence", {"evidence_digest": HASH}),
            ("dataset", "dataset", {"dataset": None}),
            ("grant", "dataset", {"dataset": DatasetUse(b"\x35" * 20, b"\x36" * 32, HASH, None)}),
            ("slice", "dataset", {"dataset": None, "bulk": ()}),
        )
    },
    "another machine": (
        lambda: receipt(
            claims(), about=facts(claims(), judgement=Judgement(None, (), b"other", NOW, b"\x0f" * 32))
        ),
        "countersignature", "evidence",
    ),
    "collateral that is none": (lambda: receipt(claims(), collateral=b"\x01"), "collateral-malformed", "collateral"),
    "appraised a day before": (
        lambda: receipt(
            claims(), about=facts(claims(), judgement=Judgement(None, (), MACHINE, NOW - DAY, b"\x0f" * 32))
        ),
        "receipt-times", "",
    ),
    "countersigned in the future": (lambda: receipt(claims(), issued_at=NOW + 500), "receipt-times", ""),
    "countersigned before it was appraised": (lambda: receipt(claims(), issued_at=NOW - 1), "receipt-times", ""),
    **{
        f"log: {name}": (lambda log=log: receipt(claims(), log=log()), "log-proof", "log proof")  # type: ignore[misc]
        for name, log in {
            "another root": lambda: log_of(ENTRY, path=(HASH, HASH)),
            "a path too short": lambda: log_of(ENTRY, path=()),
            "a path too long": lambda: log_of(ENTRY, path=(HASH,) * 9),
            "another place": lambda: log_of(ENTRY, index=0),
            "another size": lambda: log_of(ENTRY, size=4),
            "an empty log": lambda: log_of(ENTRY, size=0, path=()),
            "another time": lambda: log_of(ENTRY, timestamp=NOW),
            "a head that nobody signed": lambda: log_of(ENTRY, signature=bytes(65)),
            "a head of another sms": lambda: prove(ENTRY, 1, [b"a"], ORIGIN, NOW + 5, OTHER_SMS),
            "a refusal": lambda: log_of(entry_of(facts(claims()), 1, outcome="refused")),
            "an entry of another task": lambda: log_of(entry_of(facts(claims(), task_id=HASH), 1)),
            "an entry of another enclave": lambda: log_of(entry_of(facts(claims(), challenge=bytes(20)), 1)),
            "an entry of other evidence": lambda: log_of(entry_of(facts(claims(), evidence_digest=HASH), 1)),
            "an entry of other data": lambda: log_of(entry_of(facts(claims(), dataset=None), 1)),
            "an entry that says another place": lambda: log_of(entry_of(facts(claims()), 2)),
            "an entry that is no json": lambda: log_of(b"\xff"),
            "an entry that is a list": lambda: log_of(b"[]"),
            "an entry of nested lists": lambda: log_of(b"[" * 4000),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(STATED))
def test_what_the_sms_states_is_held_against_the_claims(name: str) -> None:
    action, code, part = STATED[name]
    encoded = action()
    with pytest.raises(RemoteError) as refusal:
        verify(encoded)  # type: ignore[arg-type]
    assert (refusal.value.code, refusal.value.part or "") == (code, part)


def restated(change: Callable[[dict[object, object]], object]) -> bytes:
    """The receipt whose countersignature has changed members, signed by the SMS itself."""
    tagged = parse_cbor(SOUND)
    assert isinstance(tagged, Tagged)
    assert isinstance(tagged.value, list)
    protected, unprotected, payload, signature = tagged.value
    inner = parse_cbor(unprotected["countersignature"])  # type: ignore[index,call-overload,arg-type]
    assert isinstance(inner, Tagged)
    assert isinstance(inner.value, list)
    header, none, statement, _ = inner.value
    values = parse_cbor(statement)  # type: ignore[arg-type]
    change(values)  # type: ignore[arg-type]
    new = build_cbor(values)
    digest = hashlib.sha256(build_cbor(["Signature1", header, b"", new])).digest()
    outer = {"countersignature": build_cbor(Tagged(18, [header, none, new, SMS.sign_digest(digest)[:64]]))}
    return build_cbor(Tagged(18, [protected, outer, payload, signature]))  # type: ignore[list-item]


ODD = (
    None,
    True,
    -1,
    2**63,
    b"",
    b"\x01" * 33,
    "",
    "x" * 300,
    [],
    [None],
    [[]],
    {},
    {1: 2},
    [b"\x01" * 20, b"\x02" * 32, 1, 2],
)
MEMBERS = (
    "task_id",
    "challenge",
    "evidence",
    "appraisal",
    "dataset",
    "bulk",
    "receipt",
    "chain_id",
    "hub",
    "sms",
    "log",
    6,
)


@pytest.mark.parametrize("label", [*MEMBERS, "collateral"])
def test_odd_values_of_the_countersignature_are_refused_by_name(label: str | int) -> None:
    verify(restated(lambda values: None))
    same = {"dataset": (), "bulk": (None,)}.get(str(label), ())
    for value in ODD:
        if value in same:
            continue
        with pytest.raises(RemoteError) as refusal:
            verify(restated(lambda values, value=value: values.update({label: value})))  # type: ignore[misc]
        assert refusal.value.part is not None or refusal.value.code == "receipt-times"
    with pytest.raises(RemoteError):
        verify(restated(lambda values: values.pop(label)))
    with pytest.raises(RemoteError):
        verify(restated(lambda values: values.update({f"{label}2": None})))


@pytest.mark.parametrize(("label", "length"), [("evidence", 2), ("appraisal", 5), ("log", 6)])
def test_odd_values_inside_the_countersignature_are_refused(label: str, length: int) -> None:
    for place in range(length):
        for value in ODD:

            def change(values: dict[object, object], place: int = place, value: object = value) -> None:
                inner = values[label]
                assert isinstance(inner, list)
                if inner[place] == value or (label, place, value) == ("appraisal", 1, []):
                    inner.append(None)
                inner[place] = value

            if label == "appraisal" and place in (0, 1, 2, 4) and not isinstance(value, list | dict | bool | int):
                continue  # the SMS may state any such text or bytes; sizes are checked below
            with pytest.raises(RemoteError):
                verify(restated(change))


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_whatever_the_bytes_it_is_refused_with_a_name(noise: bytes) -> None:
    place = int.from_bytes(noise[:2], "big") % len(SOUND)
    for encoded in (noise, SOUND[:place] + noise, SOUND[:place] + noise + SOUND[place:]):
        if encoded != SOUND:
            with pytest.raises(RemoteError):
                verify(encoded)


def test_the_countersignature_of_another_receipt_does_not_pass() -> None:
    other = parse_cbor(receipt(claims(index=4)))
    assert isinstance(other, Tagged)
    assert isinstance(other.value, list)
    with pytest.raises(RemoteError) as refusal:
        verify(whole(1, other.value[1]))
    assert (refusal.value.code, refusal.value.part) == ("countersignature", "countersignature")


def test_the_digest_covers_claims_and_signature() -> None:
    parsed = parse_receipt(SOUND)
    tagged = cbor2.loads(SOUND)
    message = cbor2.dumps(["Signature1", tagged.value[0], b"", tagged.value[2]])
    digest = hashlib.sha256(message + parsed.signature).digest()
    assert receipt_digest(message, parsed.signature) == digest
    assert verify(SOUND).statement.receipt == digest


def test_no_receipt_over_its_cap_is_built() -> None:
    big = Evidence(claims().evidence.kind, bytes(120_000))
    inputs = tuple(InputDigest("x" * 250, b"\x38" * 32) for _ in range(900))
    with pytest.raises(TooLarge):
        build_receipt(claims(evidence=big, inputs=inputs), sign, lambda _: bytes(500_000))


def test_empty_is_refused() -> None:
    with pytest.raises(DecodeError):
        parse_receipt(b"")
