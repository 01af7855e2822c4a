"""What one rehearsal is asked to do, and what becomes of it: sealed mock data, files under locations, an order's words."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloister.errors import InputError, quoted
from cloister.generator.rehearsal.data import find_path, input_location, read_pieces, seal_mock_data
from cloister.generator.rehearsal.settings import CATEGORY_SECONDS, MockRun, check_secret, parse_secrets
from cloister.protocol.codec import Address
from cloister.protocol.params import RequestParams
from cloister.protocol.releases import BULK_CAP, RefusedDataset, ReleasedDataset
from cloister.sealing.envelope import HpkePrivateKey
from cloister.sealing.keys import build_content_key, generate_content_key
from cloister.sealing.private_files import seal_private_file

_BULK_CID = "bafyrehearsal234567"


@dataclass(frozen=True, slots=True)
class Request:
    """What one rehearsal is asked to do. None: as ``mock/run.toml`` says."""

    args: str | None = None
    data: object = None
    bulk: Iterable[object] | None = None
    input_files: Iterable[str | Path] | None = None
    private_files: Iterable[str | Path] | None = None
    secrets: Mapping[int, str] | None = field(default=None, repr=False)
    app_secret: str | None = field(default=None, repr=False)
    purpose: str | None = None
    connect: Mapping[str, str] | None = None
    callback: bool | None = None
    max_result_bytes: int | None = None
    category: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.category < len(CATEGORY_SECONDS):
            raise InputError(f"there is no category {self.category}", hint=f"0 to {len(CATEGORY_SECONDS) - 1}")

    def over(self, mock: MockRun) -> Request:
        """This request where it says something, the settings' where it does not."""
        data, bulk = self.data, self.bulk
        if data is None and bulk is None:
            data, bulk = mock.data, mock.bulk
        return Request(
            args=mock.args if self.args is None else self.args,
            data=data,
            bulk=bulk,
            input_files=mock.input_files if self.input_files is None else self.input_files,
            private_files=mock.private_files if self.private_files is None else self.private_files,
            secrets=mock.secrets if self.secrets is None else parse_secrets(self.secrets),
            app_secret=mock.app_secret if self.app_secret is None else check_secret("app secret", self.app_secret),
            purpose=mock.purpose if self.purpose is None else self.purpose,
            connect=mock.connect if self.connect is None else self.connect,
            callback=mock.callback if self.callback is None else self.callback,
            max_result_bytes=mock.max_result_bytes if self.max_result_bytes is None else self.max_result_bytes,
            category=self.category,
        )


@dataclass(frozen=True, slots=True)
class Props:
    """What a request became: sealed data, files under locations, and the words of the order. ``secrets`` are the
    requester's, the key of private files among them.
    """

    content: Mapping[str, Path]
    dataset: ReleasedDataset | None
    bulk: tuple[ReleasedDataset | RefusedDataset, ...] | None
    params: RequestParams
    key: HpkePrivateKey = field(repr=False)
    secrets: Mapping[int, str] = field(repr=False)


def build_props(request: Request, mock: Path, work: Path) -> Props:
    content: dict[str, Path] = {}
    dataset, bulk = None, None
    if request.data is not None and request.bulk is not None:
        raise InputError("data and bulk are both given", hint="a task has one protected data or a bulk of them")
    if request.data is not None:
        dataset, sealed = seal_mock_data(_found(request.data, mock), "data", work)
        content[dataset.multiaddr] = sealed
    if request.bulk is not None:
        bulk = tuple(_item(number, item, mock, work, content) for number, item in enumerate(request.bulk, 1))
        if not 0 < len(bulk) <= BULK_CAP:
            raise InputError(f"a bulk of {len(bulk)} protected data", hint=f"one task takes 1 to {BULK_CAP}")
    secrets, input_key = dict(request.secrets or {}), None
    public, private = tuple(request.input_files or ()), tuple(request.private_files or ())
    if public and private:
        raise InputError("the input files of a request are all private or all public")
    urls = _place_files(public, mock, content)
    if private:
        input_key = max(secrets, default=0) + 1
        urls, secrets[input_key] = _seal_files(private, mock, work, content)
    key = HpkePrivateKey.generate(os.urandom)
    params = RequestParams(
        iexec_args=request.args,
        iexec_input_files=urls,
        iexec_secrets={number: f"secret-{number}" for number in secrets},
        iexec_result_encryption=True,
        bulk_cid=None if bulk is None else _BULK_CID,
        cloister_result_key=hashlib.sha256(key.public.raw).hexdigest(),
        cloister_purpose=request.purpose,
        cloister_input_key=input_key,
    )
    return Props(content, dataset, bulk, params, key, secrets)


def _place_files(files: tuple[str | Path, ...], mock: Path, content: dict[str, Path]) -> tuple[str, ...]:
    """The addresses of public input files: local ones get made-up ones."""
    urls = []
    for number, given in enumerate(files, 1):
        if str(given).startswith(("https://", "http://")):
            urls.append(str(given))
            continue
        path = _find_file(given, mock)
        urls.append(input_location(number, path))
        content[urls[-1]] = path
    return tuple(urls)


def _seal_files(
    files: tuple[str | Path, ...], mock: Path, work: Path, content: dict[str, Path]
) -> tuple[tuple[str, ...], str]:
    """The addresses of private input files, sealed as a requester's SDK does it, and the text of their key."""
    key, urls = generate_content_key(os.urandom), []
    for number, given in enumerate(files, 1):
        path, sealed = _find_file(given, mock), work / f"input-{number}.sealed"
        with sealed.open("wb") as file:
            for piece in seal_private_file(key, number, read_pieces(path), entropy=os.urandom):
                file.write(piece)
        urls.append(input_location(number, sealed))
        content[urls[-1]] = sealed
    return tuple(urls), build_content_key(key)


def _find_file(given: str | Path, mock: Path) -> Path:
    path = given if isinstance(given, Path) else find_path(given, mock)
    if not path.is_file():
        raise InputError(f"the input file {quoted(str(given))} is not a file")
    return path


def _found(value: object, mock: Path) -> object:
    return find_path(value, mock) if isinstance(value, str) else value


def _item(
    number: int, value: object, mock: Path, work: Path, content: dict[str, Path]
) -> ReleasedDataset | RefusedDataset:
    name = f"data-{number}"
    if value is None or value == "":
        address = "0x" + hashlib.sha256(f"cloister rehearsal {name}".encode()).digest()[:20].hex()
        return RefusedDataset(Address(address), "dataset-refused", "the owner refuses, as the rehearsal was told")
    released, sealed = seal_mock_data(_found(value, mock), name, work)
    content[released.multiaddr] = sealed
    return released
