"""One sound world for the tests of TDX and SGX: an authority, a machine, a quote and collateral of each kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.dcap_authority import SOUND, DcapAuthority, Knobs

from cloister.attestation.claims import Claims
from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verifiers.sgx import verify_sgx
from cloister.attestation.verifiers.tdx import verify_tdx
from cloister.errors import DecodeError, VerificationError

NOW = 1_790_000_000
"""2026-09-21."""
DAY = 86400
REPORT_DATA = hashlib.sha512(b"the test's binding").digest()
AUTHORITY = DcapAuthority.create(now=NOW)
IMPOSTOR = DcapAuthority.create(now=NOW, seed="impostor")
MACHINE = AUTHORITY.machine()
TDX, SGX = EvidenceKind.TDX, EvidenceKind.SGX
VERIFIERS: dict[EvidenceKind, Callable[[bytes, Collateral, int], Claims]] = {TDX: verify_tdx, SGX: verify_sgx}
BODY = {TDX: 584, SGX: 384}


def quote(kind: EvidenceKind, authority: DcapAuthority = AUTHORITY, **parts: object) -> bytes:
    make = authority.tdx_quote if kind is TDX else authority.sgx_quote
    return make(REPORT_DATA, **parts)  # type: ignore[operator,no-any-return]


QUOTES = {kind: quote(kind) for kind in (TDX, SGX)}
COLLATERALS = {kind: AUTHORITY.collateral(kind) for kind in (TDX, SGX)}


@dataclass(frozen=True, slots=True)
class Case:
    """What a verifier is asked; all else is sound."""

    payload: bytes | None = None
    collateral: Collateral | None = None
    now: int = NOW
    roots: tuple[tuple[EvidenceKind, bytes], ...] = field(default_factory=AUTHORITY.roots)

    def ask(self, kind: EvidenceKind) -> Claims:
        payload = QUOTES[kind] if self.payload is None else self.payload
        return VERIFIERS[kind](payload, self.collateral or COLLATERALS[kind], self.now)


def refusal(ask: Callable[..., object], *arguments: object) -> str:
    """The code of the refusal; whatever else is raised fails the test."""
    try:
        ask(*arguments)
    except (DecodeError, VerificationError) as error:
        return error.code if len(error.message) < 300 else "message-too-long"
    return "accepted"


def knobs(kind: EvidenceKind, **other: object) -> Case:
    """Sound but for the collateral."""
    return Case(collateral=AUTHORITY.collateral(kind, Knobs(**other)))  # type: ignore[arg-type]


def made(kind: EvidenceKind, **parts: object) -> Case:
    """Sound but for the quote's making."""
    return Case(payload=quote(kind, **parts))


def cut(kind: EvidenceKind, change: Callable[[bytes], bytes]) -> Case:
    """Sound but for the quote's bytes."""
    return Case(payload=change(QUOTES[kind]))


def put(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + value + data[at + len(value) :]


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def documents(kind: EvidenceKind, *contents: bytes) -> Case:
    """Sound roots with these documents."""
    return Case(
        collateral=Collateral(AUTHORITY.roots(), tuple(Document(kind, "dcap", content) for content in contents))
    )


def members(kind: EvidenceKind, change: Callable[[dict[str, str]], object], base: Knobs = SOUND) -> Case:
    """A document whose members were changed by hand; their signatures stay as they were."""
    value = AUTHORITY.members(kind, base)
    change(value)
    return documents(kind, json.dumps(value).encode())
