"""Tokens of the result proxy: JSON Web Tokens under HS256 (RFC 7519), as iExec's clients carry them about.

An upload token is good for one task, worker and enclave key. A login token proves an address and allows no upload.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import jwt

from cloister.errors import DecodeError, Unauthenticated
from cloister.protocol.codec import Address, Bytes32
from cloister.services.resultproxy.signing_key import SigningKey

TOKEN_CAP: Final = 2048
"""Longest token that is looked at, in characters."""

_ALGORITHM: Final = "HS256"
_ISSUER: Final = "cloister/result-proxy"
_UPLOAD: Final = "upload"
_LOGIN: Final = "login"


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """Proof that a workerpool authorized a worker, and with it an enclave key, to bring a task's result.

    Built only by ``Tokens.verify_upload``. ``enclave_challenge`` is zero for a deal without enclave.
    """

    task_id: Bytes32
    worker: Address
    enclave_challenge: Address


class Tokens:
    """Issues and verifies tokens for one audience. ``clock`` gives Unix seconds."""

    def __init__(
        self,
        key: SigningKey,
        audience: str,
        clock: Callable[[], float],
        *,
        upload_seconds: int,
        login_seconds: int,
    ) -> None:
        self._key = key.derive("tokens")
        self._audience = audience
        self._clock = clock
        self._upload_seconds = upload_seconds
        self._login_seconds = login_seconds

    def issue_upload(self, *, task_id: Bytes32, worker: Address, enclave_challenge: Address) -> str:
        """Build the token for one upload."""
        claims = {"task": str(task_id), "challenge": str(enclave_challenge)}
        return self._issue(_UPLOAD, worker, self._upload_seconds, claims)

    def issue_login(self, address: Address) -> str:
        """Build the token that proves an address."""
        return self._issue(_LOGIN, address, self._login_seconds, {})

    def verify_upload(self, header: str | None) -> UploadGrant:
        """Prove that a header carries an upload token of ours.

        Raises:
            Unauthenticated: none, another kind, a wrong signature, or expired.
        """
        claims = self._verify(header)
        if claims["scope"] != _UPLOAD:
            raise _refusal()
        try:
            return UploadGrant(Bytes32(claims["task"]), Address(claims["sub"]), Address(claims["challenge"]))
        except (KeyError, DecodeError) as error:
            raise _refusal() from error

    def verify_any(self, header: str | None) -> Address:
        """Prove that a header carries any token of ours; return whose.

        Raises:
            Unauthenticated: none, a wrong signature, or expired.
        """
        return Address(self._verify(header)["sub"])

    def _issue(self, scope: str, subject: Address, seconds: int, claims: dict[str, str]) -> str:
        now = int(self._clock())
        payload = {
            "iss": _ISSUER,
            "aud": self._audience,
            "sub": str(subject),
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
            "scope": scope,
            **claims,
        }
        return jwt.encode(payload, self._key, algorithm=_ALGORITHM)

    def _verify(self, header: str | None) -> dict[str, Any]:
        token = (header or "").removeprefix("Bearer ").strip()
        if not token or len(token) > TOKEN_CAP:
            raise _refusal()
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=self._audience,
                issuer=_ISSUER,
                # Expiry is judged below, by the clock that issued it.
                options={
                    "require": ["exp", "iat", "aud", "iss", "sub", "scope"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError:
            raise _refusal() from None
        if not isinstance(claims["exp"], int) or claims["exp"] <= self._clock():
            raise _refusal()
        return claims


def _refusal() -> Unauthenticated:
    return Unauthenticated("the token is not valid here", hint="ask POST /v1/results/token for a new one")
