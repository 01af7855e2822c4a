"""Whatever the bytes: a named refusal, or exactly the claims of the sound quote."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.genuine import genuine
from tests.unit.attestation.dcap.cases import (
    AUTHORITY,
    BODY,
    COLLATERALS,
    NOW,
    QUOTES,
    SGX,
    TDX,
    VERIFIERS,
    Case,
    documents,
    quote,
    refusal,
)

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import EvidenceKind

BOTH = pytest.mark.parametrize("kind", [TDX, SGX])
CLAIMS = {kind: Case().ask(kind) for kind in (TDX, SGX)}
SEARCH = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def ask(kind: EvidenceKind, payload: bytes) -> str:
    def sound() -> None:
        assert VERIFIERS[kind](payload, COLLATERALS[kind], NOW) == CLAIMS[kind]

    return refusal(sound)


@BOTH
def test_every_flipped_byte_before_the_certificates_is_refused(kind: EvidenceKind) -> None:
    sound = QUOTES[kind]
    certificates = sound.index(b"-----BEGIN")
    for position in range(kind is SGX, certificates, 7):
        changed = sound[:position] + bytes([sound[position] ^ 1 << position % 8]) + sound[position + 1 :]
        assert ask(kind, changed) != "accepted", position


@BOTH
def test_a_flipped_byte_in_the_certificates_changes_nothing_or_is_refused(kind: EvidenceKind) -> None:
    sound = QUOTES[kind]
    refused = 0
    for position in range(sound.index(b"-----BEGIN"), len(sound), 41):
        changed = sound[:position] + bytes([sound[position] ^ 1 << position % 7]) + sound[position + 1 :]
        refused += ask(kind, changed) != "accepted"
    assert refused > 50


@BOTH
def test_a_flipped_byte_in_the_collateral_changes_nothing_or_is_refused(kind: EvidenceKind) -> None:
    sound = AUTHORITY.document(kind).content
    for position in range(0, len(sound), 61):
        changed = sound[:position] + bytes([sound[position] ^ 1 << position % 7]) + sound[position + 1 :]
        case = documents(kind, changed)

        def sound_or_refused(case: Case = case) -> None:
            assert case.ask(kind) == CLAIMS[kind]

        refusal(sound_or_refused)


@BOTH
def test_every_byte_that_intel_signs_in_the_collateral_counts(kind: EvidenceKind) -> None:
    members = AUTHORITY.members(kind)
    for name in ("tcb_info", "qe_identity"):
        text = members[name]
        for position in range(0, len(text), 23):
            changed = text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :]
            case = documents(kind, json.dumps(members | {name: changed}).encode())
            assert refusal(case.ask, kind) != "accepted", (name, position)


@BOTH
@SEARCH
@given(data=st.data())
def test_cut_anywhere(kind: EvidenceKind, data: st.DataObject) -> None:
    sound = QUOTES[kind]
    length = data.draw(st.integers(0, len(sound) - 1))
    assert ask(kind, sound[:length]) == "quote-truncated"


@BOTH
@SEARCH
@given(data=st.data())
def test_spliced(kind: EvidenceKind, data: st.DataObject) -> None:
    pieces = [*QUOTES.values(), quote(TDX, version=5, body=15), quote(kind, debug=True), bytes(64), b"\xff" * 64]
    first, second = data.draw(st.sampled_from(pieces)), data.draw(st.sampled_from(pieces))
    cut, start = data.draw(st.integers(0, len(first))), data.draw(st.integers(0, len(second)))
    spliced = first[:cut] + second[start:]
    if not spliced.startswith(tuple(pieces[:3])):
        assert ask(kind, spliced) != "accepted"


@BOTH
@SEARCH
@given(data=st.data())
def test_any_number_at_any_place(kind: EvidenceKind, data: st.DataObject) -> None:
    """Lengths and types are hit at their own places too."""
    sound = QUOTES[kind]
    places = (0, 2, 4, 48, 50, 48 + BODY[kind], sound.index(b"-----BEGIN") - 4, sound.index(b"-----BEGIN") - 6)
    at = data.draw(st.sampled_from(places) | st.integers(0, len(sound) - 4))
    number = data.draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1))
    changed = sound[:at] + struct.pack("<I", number) + sound[at + 4 :]
    ask(kind, changed[: len(sound)])


@BOTH
@SEARCH
@given(noise=st.binary(max_size=2000), version=st.sampled_from([3, 4, 5]))
def test_noise_behind_a_sound_header(kind: EvidenceKind, noise: bytes, version: int) -> None:
    tee = 0x81 if kind is TDX else 0
    assert ask(kind, struct.pack("<HHI", version, 2, tee) + noise) != "accepted"


@BOTH
@SEARCH
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
        max_leaves=10,
    ),
    name=st.sampled_from(sorted(AUTHORITY.members(TDX))),
)
def test_any_value_for_any_member(kind: EvidenceKind, value: object, name: str) -> None:
    members: dict[str, object] = {**AUTHORITY.members(kind), name: value}
    assert refusal(lambda: documents(kind, json.dumps(members).encode()).ask(kind)) != "accepted"
    members[name] = json.dumps(value)
    assert refusal(lambda: documents(kind, json.dumps(members).encode()).ask(kind)) != "accepted"


@SEARCH
@given(data=st.data())
def test_signed_words_that_make_no_sense(data: st.DataObject) -> None:
    """Even an authority that we trust may publish nonsense: it is refused by name too."""
    text = AUTHORITY.tcb_info(TDX)
    value = json.loads(text)
    name = data.draw(st.sampled_from(sorted(value)))
    value[name] = data.draw(st.none() | st.integers() | st.text(max_size=8) | st.just([]) | st.just([{}]) | st.just({}))
    case = documents(TDX, json.dumps(AUTHORITY.members(TDX) | AUTHORITY.signed_tcb_info(json.dumps(value))).encode())
    refusal(lambda: case.ask(TDX))


def test_a_genuine_quote_in_pieces() -> None:
    sound, document = genuine("dcap/tdx_quote"), Document(TDX, "dcap", genuine("dcap/tdx_quote_collateral.json"))
    given_ = Collateral(AUTHORITY.roots(), (document,))
    # Intel's root is not trusted here: whatever is cut off, nothing gets past its name.
    for length in range(0, len(sound), 97):
        said = refusal(VERIFIERS[TDX], sound[:length], given_, NOW)
        assert said in {"quote-truncated", "quote-trailing-bytes", "untrusted-root"}, length
