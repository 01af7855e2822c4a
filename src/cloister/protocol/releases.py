"""What the SMS releases to an enclave. It holds keys: no secret shows in ``repr`` or in an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from cloister.errors import DecodeError, InputError, TooLarge, quoted
from cloister.protocol.codec import (
    Address,
    Bytes32,
    build_base64,
    canonical_json,
    check_keys,
    check_uint,
    parse_address,
    parse_base64,
    parse_json,
    parse_text,
    parse_uint,
    parse_word,
)
from cloister.protocol.orders import PARAMS_CAP

VERSION: Final = 1
MULTIADDR_CAP: Final = 4 * 1024
SECRET_CAP: Final = 8 * 1024
"""Longest secret in characters; the SMS itself takes 4096 bytes."""
SECRETS_CAP: Final = 64
PUBLIC_KEY_CAP: Final = 8 * 1024
BULK_CAP: Final = 100
"""Most datasets of one bulk slice, as iExec's clients prepare them."""
REASON_CAP: Final = 256
RELEASE_CAP: Final = 1024 * 1024
"""Largest release in bytes of JSON, before it is sealed."""


class ResultFormat(StrEnum):
    """How the result is closed: not at all, to a native key, or as iExec's clients open it."""

    PLAIN = "plain"
    HPKE = "hpke"
    RSA = "rsa"


@dataclass(frozen=True, slots=True)
class ReleasedApp:
    """The app to run. ``multiaddr`` is a location as text; ``checksum`` is the SHA-256 of the bundle."""

    address: Address
    multiaddr: str
    checksum: Bytes32

    def to_json(self) -> dict[str, object]:
        """Return the app as JSON members."""
        return {"address": self.address, "multiaddr": self.multiaddr, "checksum": self.checksum}


@dataclass(frozen=True, slots=True)
class ReleasedDataset:
    """The protected data and its key as the SMS stores it. ``checksum`` is the SHA-256 of the ciphertext.

    ``order_hash`` and ``policy_hash`` name the grant that was checked; receipts carry them.
    """

    address: Address
    multiaddr: str
    checksum: Bytes32
    key: str = field(repr=False)
    order_hash: Bytes32 | None = None
    policy_hash: Bytes32 | None = None

    def to_json(self) -> dict[str, object]:
        """Return the dataset as JSON members, key included."""
        return {
            "address": self.address,
            "multiaddr": self.multiaddr,
            "checksum": self.checksum,
            "key": self.key,
            "order_hash": self.order_hash,
            "policy_hash": self.policy_hash,
        }


@dataclass(frozen=True, slots=True)
class RefusedDataset:
    """A bulk item that this task may not use. ``cause`` is the code of the check that failed, ``message`` its text."""

    address: Address
    cause: str
    message: str

    def to_json(self) -> dict[str, object]:
        """Return the refusal as JSON members."""
        return {"address": self.address, "cause": self.cause, "message": self.message}


BulkItem: TypeAlias = ReleasedDataset | RefusedDataset


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that an enclave needs for one task and may trust. ``deadline`` is unix seconds.

    ``requester_secrets`` maps positive numbers (as text) to secrets. ``public_key`` closes the result: an HPKE key for
    ``hpke``, the DER of an RSA key (SPKI) for ``rsa``, None for ``plain``. ``bulk`` holds the datasets of this task's
    slice in the slice's order, each released or refused by itself; None when the request is not a bulk request.
    ``logs``: everybody else than the requester who has something secret in this task lets the requester read what the app
    prints.
    """

    task_id: Bytes32
    deal_id: Bytes32
    index: int
    bot_first: int
    bot_size: int
    chain_id: int
    hub: Address
    worker: Address
    beneficiary: Address
    requester: Address
    callback: Address
    params: str
    app: ReleasedApp
    dataset: ReleasedDataset | None
    result_format: ResultFormat
    result_public_key: bytes | None
    deadline: int
    max_result_bytes: int | None = None
    app_secret: str | None = field(default=None, repr=False)
    requester_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    bulk: tuple[BulkItem, ...] | None = None
    logs: bool = False

    def __post_init__(self) -> None:
        for name in ("index", "bot_first", "bot_size", "chain_id", "deadline"):
            check_uint(name, getattr(self, name))
        if self.max_result_bytes is not None:
            check_uint("max_result_bytes", self.max_result_bytes)
        if (self.result_format is ResultFormat.PLAIN) != (self.result_public_key is None):
            raise InputError(f"a result in the format {self.result_format} and its public key do not agree")
        if self.bulk is not None and self.dataset is not None:
            raise InputError("a release is for one dataset or for a bulk slice, not both")
        if self.bulk is not None and len(self.bulk) > BULK_CAP:
            raise TooLarge(f"a bulk slice of {len(self.bulk)} datasets is over the cap of {BULK_CAP}")
        if len(self.requester_secrets) > SECRETS_CAP:
            raise TooLarge(f"{len(self.requester_secrets)} requester secrets are over the cap of {SECRETS_CAP}")
        for number in self.requester_secrets:
            if not number.isascii() or not number.isdigit() or number.startswith("0") or len(number) > 9:
                raise InputError(f"requester secret {quoted(number)} is not a positive number")
        object.__setattr__(self, "requester_secrets", dict(self.requester_secrets))


def build_release(release: Release) -> bytes:
    """Write a release as canonical JSON: the plaintext that is sealed to the enclave.

    Raises:
        TooLarge: over the cap.
    """
    key = release.result_public_key
    raw = canonical_json(
        {
            "version": VERSION,
            "task_id": release.task_id,
            "deal_id": release.deal_id,
            "index": release.index,
            "bot_first": release.bot_first,
            "bot_size": release.bot_size,
            "chain_id": release.chain_id,
            "hub": release.hub,
            "worker": release.worker,
            "beneficiary": release.beneficiary,
            "requester": release.requester,
            "callback": release.callback,
            "params": release.params,
            "app": release.app.to_json(),
            "dataset": None if release.dataset is None else release.dataset.to_json(),
            "bulk": None if release.bulk is None else [_build_item(item) for item in release.bulk],
            "app_secret": release.app_secret,
            "requester_secrets": dict(release.requester_secrets),
            "result": {
                "format": release.result_format.value,
                "public_key": None if key is None else build_base64(key),
            },
            "max_result_bytes": release.max_result_bytes,
            "deadline": release.deadline,
            **({"logs": True} if release.logs else {}),
        }
    )
    if len(raw) > RELEASE_CAP:
        raise TooLarge(f"release of {len(raw)} bytes is over the cap of {RELEASE_CAP}")
    return raw


def _parse_app(value: object) -> ReleasedApp:
    given = check_keys("app", value, required=("address", "multiaddr", "checksum"))
    return ReleasedApp(
        parse_address("app address", given["address"]),
        parse_text("app multiaddr", given["multiaddr"], cap=MULTIADDR_CAP),
        parse_word("app checksum", given["checksum"]),
    )


def _parse_dataset(value: object) -> ReleasedDataset | None:
    if value is None:
        return None
    required = ("address", "multiaddr", "checksum", "key")
    given = check_keys("dataset", value, required=required, optional=("order_hash", "policy_hash"))
    order_hash, policy_hash = given.get("order_hash"), given.get("policy_hash")
    return ReleasedDataset(
        parse_address("dataset address", given["address"]),
        parse_text("dataset multiaddr", given["multiaddr"], cap=MULTIADDR_CAP),
        parse_word("dataset checksum", given["checksum"]),
        parse_text("dataset key", given["key"], cap=SECRET_CAP),
        None if order_hash is None else parse_word("order_hash", order_hash),
        None if policy_hash is None else parse_word("policy_hash", policy_hash),
    )


def _build_item(item: BulkItem) -> dict[str, object]:
    return {"refused" if isinstance(item, RefusedDataset) else "dataset": item.to_json()}


def _parse_item(value: object) -> BulkItem:
    given = check_keys("bulk item", value, required=(), optional=("dataset", "refused"))
    if len(given) != 1:
        raise DecodeError("bulk item: expected one of dataset and refused")
    if "refused" in given:
        refused = check_keys("refused", given["refused"], required=("address", "cause", "message"))
        return RefusedDataset(
            parse_address("refused address", refused["address"]),
            parse_text("refused cause", refused["cause"], cap=REASON_CAP),
            parse_text("refused message", refused["message"], cap=REASON_CAP),
        )
    dataset = _parse_dataset(given["dataset"])
    if dataset is None:
        raise DecodeError("bulk item: the dataset is null")
    return dataset


def _parse_bulk(value: object) -> tuple[BulkItem, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > BULK_CAP:
        raise DecodeError(f"bulk: expected a list of at most {BULK_CAP} items")
    return tuple(_parse_item(item) for item in value)


def _parse_secrets(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise DecodeError("requester_secrets: expected an object")
    return {str(number): parse_text("requester secret", text, cap=SECRET_CAP) for number, text in value.items()}


def _parse_format(value: object) -> ResultFormat:
    try:
        return ResultFormat(value)  # type: ignore[arg-type]  # anything but a known text raises
    except ValueError as error:
        raise DecodeError(f"unknown result format {quoted(value)}") from error


_KEYS: Final = [
    "version",
    "task_id",
    "deal_id",
    "index",
    "bot_first",
    "bot_size",
    "chain_id",
    "hub",
    "worker",
    "beneficiary",
    "requester",
    "callback",
    "params",
    "app",
    "dataset",
    "bulk",
    "app_secret",
    "requester_secrets",
    "result",
    "max_result_bytes",
    "deadline",
]


def parse_release(document: bytes) -> Release:
    """Read the release that was opened with the enclave's key.

    Raises:
        DecodeError, TooLarge, InputError: a missing, unknown, oversized or unreadable member.
    """
    given = check_keys("release", parse_json(document, cap=RELEASE_CAP), required=_KEYS, optional=("logs",))
    if given["version"] != VERSION or isinstance(given["version"], bool):
        raise DecodeError(f"release: version {quoted(given['version'])} is not {VERSION}")
    if given.get("logs", True) is not True:
        raise DecodeError("release: logs is there and not true")
    result = check_keys("result", given["result"], required=("format", "public_key"))
    key, limit, app_secret = result["public_key"], given["max_result_bytes"], given["app_secret"]
    return Release(
        task_id=parse_word("task_id", given["task_id"]),
        deal_id=parse_word("deal_id", given["deal_id"]),
        index=parse_uint("index", given["index"]),
        bot_first=parse_uint("bot_first", given["bot_first"]),
        bot_size=parse_uint("bot_size", given["bot_size"]),
        chain_id=parse_uint("chain_id", given["chain_id"]),
        hub=parse_address("hub", given["hub"]),
        worker=parse_address("worker", given["worker"]),
        beneficiary=parse_address("beneficiary", given["beneficiary"]),
        requester=parse_address("requester", given["requester"]),
        callback=parse_address("callback", given["callback"]),
        params=parse_text("params", given["params"], cap=PARAMS_CAP),
        app=_parse_app(given["app"]),
        dataset=_parse_dataset(given["dataset"]),
        bulk=_parse_bulk(given["bulk"]),
        app_secret=None if app_secret is None else parse_text("app_secret", app_secret, cap=SECRET_CAP),
        requester_secrets=_parse_secrets(given["requester_secrets"]),
        result_format=_parse_format(result["format"]),
        result_public_key=None if key is None else parse_base64("result public_key", key, cap=PUBLIC_KEY_CAP),
        max_result_bytes=None if limit is None else parse_uint("max_result_bytes", limit),
        deadline=parse_uint("deadline", given["deadline"]),
        logs="logs" in given,
    )
