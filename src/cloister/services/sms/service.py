"""The custody of secrets: who may set, ask for, replace and erase one (reference 3.2)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from cloister.errors import (
    CloisterError,
    Conflict,
    DecodeError,
    Denied,
    InputError,
    TooLarge,
    Unauthenticated,
    VerificationError,
)
from cloister.protocol import authorization
from cloister.protocol.codec import Address, parse_hex
from cloister.protocol.signatures import SIGNATURE_LENGTH, message_digest, recover_address
from cloister.sealing.envelope import HpkePublicKey
from cloister.services.sms.heads import RecentHeads
from cloister.services.sms.ledger import Ledger
from cloister.services.sms.store import SecretStore
from cloister.services.sms.vault import SecretKind, SecretName

MAX_SECRET_BYTES = 4096
MAX_WEB2_NAME = 256
RESULT_KEY_NAME = "cloister-result-encryption-public-key"
RSA_RESULT_KEY_NAME = "iexec-result-encryption-public-key"

_REQUESTER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WRONG_SIGNER = "this account is not allowed to set the secret"


def requester_secret_name(owner: Address, name: str) -> SecretName:
    """Name a requester's secret.

    Raises: InputError for a name that iExec's SMS refuses too.
    """
    if _REQUESTER_NAME.fullmatch(name) is None:
        raise InputError(
            f"a requester secret's name must match [A-Za-z0-9-_]{{1,64}}, this one has {len(name)} characters",
            code="invalid-secret-name",
        )
    return SecretName(SecretKind.REQUESTER, owner, name)


def web2_secret_name(owner: Address, name: str) -> SecretName:
    """Name an account's secret.

    Raises: InputError for an empty, overlong or unprintable name.
    """
    if not 0 < len(name) <= MAX_WEB2_NAME or not name.isprintable():
        raise InputError(f"a secret's name must have 1 to {MAX_WEB2_NAME} printable characters")
    return SecretName(SecretKind.WEB2, owner, name)


class SecretService:
    """Sets, replaces, erases and reads secrets. Safe to call from several threads."""

    def __init__(
        self,
        *,
        store: SecretStore,
        ledger: Ledger,
        heads: RecentHeads,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._heads = heads
        self._clock = clock

    def exists(self, name: SecretName) -> bool:
        """Tell whether the secret is set. Anybody may ask, as iExec's clients do."""
        return self._store.exists(name)

    def create(self, name: SecretName, value: bytes, header: str | None) -> None:
        """Set a secret that must not exist yet. ``header`` is iExec's ``Authorization``: 0x and a 65-byte signature.

        Raises: Unauthenticated (bad, foreign or spent signature), TooLarge (over 4096 bytes), InputError (empty),
        Conflict (already set), UnavailableError (no recent chain).
        """
        spent = self._authorize(name, value, header)
        result_key = self._check_value(name, value)
        now = int(self._clock())
        self._store.create(name, value, authorization=spent, now=now)
        self._remember(name, result_key, now)

    def replace(self, name: SecretName, value: bytes, header: str | None) -> None:
        """Give an account's secret a new value; the same value again is accepted and changes nothing.

        Raises: as ``create``, and NotFound instead of Conflict.
        """
        if name.kind is not SecretKind.WEB2:
            raise Conflict(f"a {name.kind.value} secret cannot be replaced")
        spent = self._authorize(name, value, header)
        result_key = self._check_value(name, value)
        now = int(self._clock())
        self._store.replace(name, value, authorization=spent, now=now)
        self._remember(name, result_key, now)

    def erase(self, name: SecretName, caller: Address) -> None:
        """Destroy a secret on the word of its owner, who ``caller`` was proven to be by a signed request.

        Raises: Denied for anybody else, NotFound when none is set.
        """
        if caller != self._signer_of(name):
            raise Denied("only the owner may erase a secret")
        self._store.erase(name, now=int(self._clock()))

    def check_dataset_owner(self, dataset: Address, caller: Address) -> None:
        """Refuse anybody but the dataset's current owner.

        Raises: Denied.
        """
        if caller != self._signer_of(SecretName(SecretKind.DATASET, dataset)):
            raise Denied("only the owner may read the record of releases")

    def _authorize(self, name: SecretName, value: bytes, header: str | None) -> bytes:
        """Return the 32-byte challenge once its signature is proven to be the right account's.

        One text for every failure: a stranger learns nothing of which part did not hold.
        """
        try:
            signature = parse_hex(header or "", length=SIGNATURE_LENGTH)
            challenge = _challenge(name, value.decode("utf-8"))
            signer = recover_address(message_digest(challenge), signature)
        except (DecodeError, VerificationError, UnicodeDecodeError):
            raise Unauthenticated(_WRONG_SIGNER, code="wrong-signer") from None
        if signer != self._signer_of(name):
            raise Unauthenticated(_WRONG_SIGNER, code="wrong-signer")
        return challenge

    def _signer_of(self, name: SecretName) -> Address | None:
        match name.kind:
            case SecretKind.WEB2 | SecretKind.REQUESTER:
                return name.owner
            case SecretKind.DATASET | SecretKind.APP:
                return self._ledger.owner_of(name.owner, block=self._heads.read().number)

    def _check_value(self, name: SecretName, value: bytes) -> HpkePublicKey | None:
        if len(value) > MAX_SECRET_BYTES:
            text = f"the secret has {len(value)} bytes, the cap is {MAX_SECRET_BYTES}"
            if name.kind is SecretKind.REQUESTER:
                raise InputError(text, code="too-large")
            raise TooLarge(text)
        if not value:
            raise InputError("the secret is empty")
        if name.kind is SecretKind.WEB2 and name.name == RESULT_KEY_NAME:
            return parse_result_key(value)
        return None

    def _remember(self, name: SecretName, key: HpkePublicKey | None, now: int) -> None:
        if key is not None:
            text = base64.b64encode(bytes(key.raw)).decode()
            self._store.remember_result_key(name.owner, key.key_id, text, now=now)


def parse_result_key(value: bytes) -> HpkePublicKey:
    """Read a native result key: base64 of the raw HPKE public key.

    Raises: InputError.
    """
    try:
        return HpkePublicKey(base64.b64decode(value.strip(), validate=True))
    except (binascii.Error, ValueError, CloisterError):
        raise InputError("the result key is not the base64 of a native public key", code="invalid-result-key") from None


def _challenge(name: SecretName, value: str) -> bytes:
    match name.kind:
        case SecretKind.DATASET:
            return authorization.sms_web3_challenge(name.owner, value)
        case SecretKind.WEB2:
            return authorization.sms_web2_challenge(name.owner, name.name, value)
        case SecretKind.APP:
            return authorization.sms_app_challenge(name.owner, value)
        case SecretKind.REQUESTER:
            return authorization.requester_secret_challenge(name.owner, name.name, value)
