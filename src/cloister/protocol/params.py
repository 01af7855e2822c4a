"""The ``params`` of a request: what the iApp is asked to do, as JSON in the order (reference 5.6).

The string in a signed order is hashed verbatim: keep it as it came, and read it with ``parse_params``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cloister.errors import DecodeError, InputError, TooLarge, quoted
from cloister.protocol.codec import check_uint, parse_json
from cloister.protocol.orders import PARAMS_CAP

INPUT_FILES_CAP: Final = 100
INPUT_FILE_CAP: Final = 256 << 20
"""Largest input file that a worker fetches, in bytes."""
SECRETS_CAP: Final = 64
STORAGE_PROVIDERS: Final = ("ipfs", "dropbox")

_CID: Final = re.compile(
    r"Qm[1-9A-HJ-NP-Za-km-z]{44}|b[a-z2-7]{10,120}|z[1-9A-HJ-NP-Za-km-z]{10,120}|[fF][0-9a-f]{10,200}"
)
_URL: Final = re.compile(r"https?://[^\s/?#]+[^\s]*")
_SECRET_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PURPOSE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_purpose(value: object) -> str:
    """Return a purpose when it is a lower-case name of at most 64 characters.

    Raises:
        InputError: anything else.
    """
    if not isinstance(value, str) or not _PURPOSE.fullmatch(value):
        raise InputError(f"purpose {quoted(value)} is not a name of a-z 0-9 . _ - up to 64 characters")
    return value


@dataclass(frozen=True, slots=True)
class RequestParams:
    """What a requester asks of an iApp.

    ``iexec_secrets`` maps positive numbers to names of requester secrets. ``cloister_result_key`` is the hex
    SHA-256 of the native public key that must seal the result; ``cloister_purpose`` is what the requester says the run
    is for; ``cloister_input_key`` is the number of the requester secret that opens the input files, all of which are
    then sealed (``sealing.private_files``). ``unknown`` holds the names of keys that were skipped in a lenient reading.
    """

    iexec_args: str | None = None
    iexec_input_files: tuple[str, ...] = ()
    iexec_secrets: Mapping[int, str] = field(default_factory=dict)
    iexec_result_encryption: bool = False
    iexec_result_storage_provider: str | None = None
    iexec_result_storage_proxy: str | None = None
    bulk_cid: str | None = None
    cloister_result_key: str | None = None
    cloister_purpose: str | None = None
    cloister_input_key: int | None = None
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.iexec_args is not None and not isinstance(self.iexec_args, str):
            raise InputError(f"iexec_args: expected a string, got {quoted(self.iexec_args)}")
        object.__setattr__(self, "iexec_input_files", tuple(self.iexec_input_files))
        if len(self.iexec_input_files) > INPUT_FILES_CAP:
            raise TooLarge(f"iexec_input_files: more than {INPUT_FILES_CAP}")
        for url in self.iexec_input_files:
            _check_url("iexec_input_files", url)
        object.__setattr__(self, "iexec_secrets", _check_secrets(self.iexec_secrets))
        _check_flag("iexec_result_encryption", self.iexec_result_encryption)
        provider = self.iexec_result_storage_provider
        if provider is not None and provider not in STORAGE_PROVIDERS:
            known = " or ".join(STORAGE_PROVIDERS)
            raise InputError(f"iexec_result_storage_provider: expected {known}, got {quoted(provider)}")
        if self.iexec_result_storage_proxy is not None:
            _check_url("iexec_result_storage_proxy", self.iexec_result_storage_proxy)
        if self.bulk_cid is not None and not _matches(_CID, self.bulk_cid):
            raise InputError(f"bulk_cid: {quoted(self.bulk_cid)} is not a cid")
        if self.cloister_result_key is not None and not _matches(_SHA256, self.cloister_result_key):
            raise InputError(f"cloister_result_key: {quoted(self.cloister_result_key)} is not 64 lower-case hex digits")
        if self.cloister_purpose is not None:
            check_purpose(self.cloister_purpose)
        if self.cloister_input_key is not None:
            _check_input_key(self.cloister_input_key, self.iexec_secrets)

    @classmethod
    def parse(cls, text: str, *, allow_unknown: bool = False) -> RequestParams:
        """Read the ``params`` of an order; see ``parse_params``."""
        return parse_params(text, allow_unknown=allow_unknown)

    def build(self) -> str:
        """Write the params as the string of an order; see ``build_params``."""
        return build_params(self)

    def to_json(self) -> dict[str, object]:
        """Return the keys that are set, in the order in which iExec's clients write them."""
        members: dict[str, object] = {}
        if self.iexec_args is not None:
            members["iexec_args"] = self.iexec_args
        if self.iexec_input_files:
            members["iexec_input_files"] = list(self.iexec_input_files)
        if self.iexec_secrets:
            members["iexec_secrets"] = {str(number): name for number, name in sorted(self.iexec_secrets.items())}
        if self.iexec_result_encryption:
            members["iexec_result_encryption"] = True
        if self.iexec_result_storage_provider is not None:
            members["iexec_result_storage_provider"] = self.iexec_result_storage_provider
        if self.iexec_result_storage_proxy is not None:
            members["iexec_result_storage_proxy"] = self.iexec_result_storage_proxy
        if self.bulk_cid is not None:
            members["bulk_cid"] = self.bulk_cid
        if self.cloister_result_key is not None:
            members["cloister_result_key"] = self.cloister_result_key
        if self.cloister_purpose is not None:
            members["cloister_purpose"] = self.cloister_purpose
        if self.cloister_input_key is not None:
            members["cloister_input_key"] = self.cloister_input_key
        return members


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected true or false, got {quoted(value)}")


def _check_url(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > 2048 or not _URL.fullmatch(value):
        raise InputError(f"{name}: {quoted(value)} is not an http(s) url")


def _check_secrets(value: Mapping[int, str]) -> dict[int, str]:
    if len(value) > SECRETS_CAP:
        raise TooLarge(f"iexec_secrets: more than {SECRETS_CAP}")
    for number, name in value.items():
        if check_uint("iexec_secrets", number, maximum=10**9 - 1) == 0:
            raise InputError("iexec_secrets: 0 is not a positive number")
        if not _matches(_SECRET_NAME, name):
            raise InputError(f"iexec_secrets: {quoted(name)} is not a secret's name")
    return dict(value)


def _check_input_key(number: object, secrets: Mapping[int, str]) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number not in secrets:
        raise InputError(f"cloister_input_key: {quoted(number)} is not the number of a secret in iexec_secrets")


def _parse_secrets(value: object) -> dict[int, str]:
    if not isinstance(value, Mapping):
        raise DecodeError(f"iexec_secrets: expected an object, got {quoted(value)}")
    secrets: dict[int, str] = {}
    for number, name in value.items():
        if not number.isascii() or not number.isdigit() or len(number) > 9 or number.startswith("0"):
            raise DecodeError(f"iexec_secrets: {quoted(number)} is not a positive number")
        secrets[int(number)] = name
    return secrets


def _parse_input_files(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [url.strip() for url in value.split(",") if url.strip()]
    if not isinstance(value, list) or len(value) > INPUT_FILES_CAP:
        raise DecodeError(f"iexec_input_files: expected a list of at most {INPUT_FILES_CAP} urls")
    return tuple(value)


_PLAIN_KEYS: Final = frozenset(
    {
        "iexec_args",
        "iexec_result_encryption",
        "iexec_result_storage_provider",
        "iexec_result_storage_proxy",
        "bulk_cid",
        "cloister_result_key",
        "cloister_purpose",
        "cloister_input_key",
    }
)


def parse_params(text: str, *, allow_unknown: bool = False) -> RequestParams:
    """Read the ``params`` of an order.

    A string that is no JSON object is the app's arguments, as iExec's clients have it.
    ``allow_unknown`` skips keys that are not known (a deal that is already matched may hold keys of other clients) and
    names them in ``unknown``.

    Raises:
        DecodeError: an unknown key (``Unknown key "k" in params``).
        InputError: a value that its key cannot hold.
        TooLarge: over a cap.
    """
    if len(text.encode("utf-8", "replace")) > PARAMS_CAP:
        raise TooLarge(f"params are longer than the cap of {PARAMS_CAP} bytes")
    try:
        value = parse_json(text, cap=PARAMS_CAP)
    except DecodeError:
        return RequestParams(iexec_args=text) if text else RequestParams()
    if not isinstance(value, dict):
        return RequestParams(iexec_args=text)
    values: dict[str, object] = {}
    unknown: list[str] = []
    for key, item in value.items():
        if key in _PLAIN_KEYS:
            values[key] = item
        elif key == "iexec_input_files":
            values["iexec_input_files"] = _parse_input_files(item)
        elif key == "iexec_secrets":
            values["iexec_secrets"] = _parse_secrets(item)
        elif allow_unknown:
            unknown.append(key)
        else:
            raise DecodeError(f'Unknown key "{quoted(key)}" in params')
    # The constructor checks every value.
    return RequestParams(**values, unknown=tuple(unknown))  # type: ignore[arg-type]


def build_params(params: RequestParams) -> str:
    """Write params as the compact JSON string that goes into an order.

    Raises:
        TooLarge: over the order's cap.
    """
    text = json.dumps(params.to_json(), separators=(",", ":"), ensure_ascii=False)
    if len(text.encode("utf-8")) > PARAMS_CAP:
        raise TooLarge(f"params are longer than the cap of {PARAMS_CAP} bytes")
    return text
