"""``mock/run.toml``: what a rehearsal runs an iApp with when nobody says otherwise. Every setting is optional.

    args = "Ada 3"                          data = "data.json"            bulk = ["data/a.json", "data/b.json", ""]
    input_files = ["files/x.csv"]           app_secret = "..."            purpose = "research"
    private_files = ["files/y.csv"]         callback = true               max_result_bytes = 1000000
    [secrets]   1 = "..."                   [connect]  "rates.example.org:443" = "api.py"
    [expect]    cause = "APP_COMPUTE_TIMEOUT"          files = ["hello.txt"]

Paths are in ``mock/``. An empty text among ``bulk`` is an item whose owner refuses it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.errors import InputError, TooLarge, quoted
from cloister.protocol.params import check_purpose

MOCK_FOLDER = "mock"
RUN_NAME = "run.toml"
SECRET_CAP = 4096
"""Longest secret that an SMS takes, bytes."""
CATEGORY_SECONDS = (300, 1_200, 3_600, 10_800, 36_000)
"""How long a run may take in categories 0 to 4, as they are on the networks (reference 5.5)."""
_CAP = 256 << 10
_TEXTS = ("args", "data", "app_secret", "purpose")
_KNOWN = (
    *_TEXTS,
    "bulk",
    "input_files",
    "private_files",
    "callback",
    "max_result_bytes",
    "secrets",
    "connect",
    "expect",
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """How a rehearsal should end. ``cause`` None: well. ``files``: names that must be among the results."""

    cause: str | None = None
    files: tuple[str, ...] = ()

    def unmet(self, cause: str | None, files: Mapping[str, bytes]) -> tuple[str, ...]:
        """What differs, one sentence each; nothing when all is as expected."""
        found = []
        if cause != self.cause:
            found.append(f"expected {self.cause or 'success'}, and it ended with {cause or 'success'}")
        found += [f"expected a result file {name}, and there is none" for name in self.files if name not in files]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class MockRun:
    """The settings as they stand in the file. ``folder`` is where its paths begin."""

    folder: Path
    args: str | None = None
    data: str | None = None
    bulk: tuple[str, ...] | None = None
    input_files: tuple[str, ...] = ()
    private_files: tuple[str, ...] = ()
    secrets: Mapping[int, str] = field(default_factory=dict, repr=False)
    app_secret: str | None = field(default=None, repr=False)
    purpose: str | None = None
    callback: bool = False
    max_result_bytes: int | None = None
    connect: Mapping[str, str] = field(default_factory=dict)
    expect: Expectation | None = None


def load_mock_run(project: Path) -> MockRun:
    """Read the settings of a project; without a file, none are set.

    Raises:
        InputError, TooLarge: a setting that is unknown or of another kind.
    """
    folder = project / MOCK_FOLDER
    path = folder / RUN_NAME
    if not path.is_file():
        return MockRun(folder)
    if path.stat().st_size > _CAP:
        raise TooLarge(f"{path} is larger than {_CAP} bytes")
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} does not parse: {quoted(str(error))}") from error
    for key in given:
        if key not in _KNOWN:
            raise InputError(f"{path}: unknown setting {quoted(key)}", hint=f"known are {', '.join(_KNOWN)}")
    try:
        return _read(given, folder)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from error


def _read(given: Mapping[str, Any], folder: Path) -> MockRun:
    texts = {name: _text(name, given[name]) for name in _TEXTS if name in given}
    if "data" in texts and "bulk" in given:
        raise InputError("data and bulk are both set", hint="a task has one protected data or a bulk of them")
    if "purpose" in texts:
        check_purpose(texts["purpose"])
    callback = given.get("callback", False)
    if not isinstance(callback, bool):
        raise InputError("callback must be true or false")
    limit = given.get("max_result_bytes")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise InputError("max_result_bytes must be a number of bytes")
    return MockRun(
        folder=folder,
        **texts,
        bulk=_texts("bulk", given["bulk"]) if "bulk" in given else None,
        input_files=_texts("input_files", given.get("input_files", [])),
        private_files=_texts("private_files", given.get("private_files", [])),
        secrets=parse_secrets(given.get("secrets", {})),
        callback=callback,
        max_result_bytes=limit,
        connect={host: _text("connect", program) for host, program in _table("connect", given).items()},
        expect=_expectation(_table("expect", given)) if "expect" in given else None,
    )


def parse_secrets(given: object) -> dict[int, str]:
    """Read numbered secrets. Messages never repeat a secret.

    Raises:
        InputError, TooLarge: a number that is none, or more than an SMS takes.
    """
    if not isinstance(given, Mapping):
        raise InputError("secrets must be numbers with texts")
    secrets: dict[int, str] = {}
    for number, text in given.items():
        if not str(number).isdecimal() or int(number) == 0:
            raise InputError(f"secret {quoted(number)} is not a number from 1")
        secrets[int(number)] = check_secret(f"secret {int(number)}", text)
    return secrets


def check_secret(name: str, text: object) -> str:
    """Give back what an SMS would take as a secret. Raises InputError, TooLarge."""
    if not isinstance(text, str):
        raise InputError(f"{name} must be a text")
    if len(text.encode()) > SECRET_CAP:
        raise TooLarge(f"{name} is longer than {SECRET_CAP} bytes")
    return text


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text")
    return check_secret(name, value) if name == "app_secret" else value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{name} must be a list of texts")
    return tuple(value)


def _table(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, dict):
        raise InputError(f"{name} must be a table")
    return value


def _expectation(given: Mapping[str, Any]) -> Expectation:
    unknown = set(given) - {"cause", "files"}
    if unknown:
        raise InputError(f"expect: unknown setting {quoted(sorted(unknown)[0])}", hint="known are cause, files")
    cause = given.get("cause")
    return Expectation(None if cause is None else _text("cause", cause), _texts("files", given.get("files", [])))
