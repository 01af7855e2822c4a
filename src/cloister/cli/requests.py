"""What every command that asks for a run takes: arguments, files, secrets, prices, where and what for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from cloister.errors import InputError, NotFound, TooLarge

P = ParamSpec("P")
R = TypeVar("R")
SECRET_CAP = 64 * 1024
"""Longest secret that is read from a file, bytes; the SMS's own cap may be lower."""

_OPTIONS = (
    click.option("--args", help="Arguments of the app."),
    click.option(
        "--input-file", "input_files", multiple=True, metavar="URL", help="Public file the app gets; may be repeated."
    ),
    click.option(
        "--private-file",
        "private_files",
        multiple=True,
        type=click.Path(path_type=Path),
        help="File of yours that only the enclave can open; may be repeated.",
    ),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="N=@FILE",
        help="Secret number N, read from a file; may be repeated.",
    ),
    click.option("--app-price", default="0", show_default=True, help="The most you pay for the app, a task."),
    click.option("--workerpool-price", default="0", show_default=True, help="The most you pay for the run, a task."),
    click.option("--workerpool", help="Only this workerpool."),
    click.option("--category", default=0, show_default=True, help="Time category."),
    click.option("--purpose", help="What for; checked against the grant's policy."),
    click.option("--plain-result", is_flag=True, help="Do NOT encrypt the result: anyone can read it."),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a request, as they were given. ``keywords`` are those of the SDK."""

    args: str | None
    input_files: tuple[str, ...]
    private_files: tuple[Path, ...]
    secrets: tuple[str, ...]
    app_price: str
    workerpool_price: str
    workerpool: str | None
    category: int
    purpose: str | None
    plain_result: bool

    def keywords(self) -> dict[str, Any]:
        """What ``process_protected_data`` and ``prepare_bulk_request`` take.

        Raises:
            InputError, NotFound, TooLarge: a secret that is not given as a file, or a file that cannot be one.
        """
        return {
            "args": self.args,
            "input_files": self.input_files,
            "private_files": self.private_files,
            "secrets": {number: read_secret(value) for number, value in numbered(self.secrets).items()},
            "app_max_price": self.app_price,
            "workerpool_max_price": self.workerpool_price,
            "workerpool": self.workerpool,
            "category": self.category,
            "purpose": self.purpose,
            "encrypt_result": not self.plain_result,
        }


def request_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options and hand the command an :class:`Asked` as ``asked``."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **given: Any) -> R:
        asked = Asked(**{name: given.pop(name) for name in Asked.__slots__})
        return command(*arguments, asked=asked, **given)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def numbered(pairs: tuple[str, ...]) -> dict[int, str]:
    """``N=@FILE`` pairs as numbers and ``@FILE``."""
    result: dict[int, str] = {}
    for pair in pairs:
        number, separator, source = pair.partition("=")
        # The pair is not repeated: it may be the secret itself.
        if not separator or not number.isdecimal() or not number.isascii():
            raise InputError("a secret is given as NUMBER=@FILE", hint="--secret 1=@token.txt")
        if int(number) in result:
            raise InputError(f"secret {int(number)} is given twice", hint="number them --secret 1=@… --secret 2=@…")
        result[int(number)] = source
    return result


def read_secret(source: str, *, what: str = "a secret", hint: str = "--secret 1=@token.txt") -> str:
    """Read a secret from ``@FILE``: never from the command line, which other users of the machine can read.

    Raises:
        InputError: it is no ``@FILE``, not UTF-8, or empty. NotFound: no such file. TooLarge: over 64 KiB.
    """
    if not source.startswith("@"):
        # It is not repeated: it may be the secret itself.
        raise InputError(f"{what} is read from a file, and never given on the command line", hint=hint)
    path = Path(source[1:])
    if not path.is_file():
        raise NotFound(f"no secret file at {path}")
    with path.open("rb") as file:
        raw = file.read(SECRET_CAP + 1)
    if len(raw) > SECRET_CAP:
        raise TooLarge(f"the secret in {path} is longer than {SECRET_CAP} bytes")
    try:
        secret = raw.decode("utf-8")
    except UnicodeDecodeError:
        # No `from`: the decoder's error would carry the bytes.
        raise InputError(f"the secret in {path} is not UTF-8", hint="encode it, for example as base64") from None
    if not secret.strip():
        raise InputError(f"the secret in {path} is empty")
    return secret
