"""Who runs an image's program: its ``USER``, by name or number, as its own account files say.

Source: OCI image-spec 1.1 (config.md, property User); passwd(5), group(5).
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.enclave.images.layers import Layers
from cloister.enclave.images.tree import File
from cloister.errors import DecodeError, quoted

ACCOUNTS_CAP = 1 << 20
MAX_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Account:
    """User and group as numbers, and the home folder."""

    user: int
    group: int
    home: str


def find_account(layers: Layers, user: str) -> Account:
    """Resolve ``user``, ``uid``, ``user:group`` or ``uid:gid``; empty is root.

    Raises:
        DecodeError: a name that the image does not know, or a number out of range.
    """
    name, colon, group = user.partition(":")
    name = name or "0"
    known = _lines(layers, "/etc/passwd", 7)
    account = _match(known, name)
    if account is None and not name.isdigit():
        raise DecodeError(
            f"the image runs as user {quoted(name)}, which its /etc/passwd does not name", code="image-user"
        )
    number = _number(name if account is None else account[2])
    default = 0 if account is None else _number(account[3])
    home = "/" if account is None or not account[5].startswith("/") else account[5]
    if not colon or not group:
        return Account(number, default, home)
    found = _match(_lines(layers, "/etc/group", 4), group)
    if found is None and not group.isdigit():
        raise DecodeError(
            f"the image runs as group {quoted(group)}, which its /etc/group does not name", code="image-user"
        )
    return Account(number, _number(group if found is None else found[2]), home)


def _match(lines: list[list[str]], name: str) -> list[str] | None:
    """The line with this name, or else with this number."""
    return next((line for line in lines if line[0] == name), None) or next(
        (line for line in lines if line[2] == name), None
    )


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 10 or int(text) > MAX_ID:
        raise DecodeError(f"the image runs as {quoted(text)}, which is no user or group number", code="image-user")
    return int(text)


def _lines(layers: Layers, path: str, fields: int) -> list[list[str]]:
    found = layers.tree.find(path)
    if found is None or not isinstance(found[1], File) or found[1].content.size > ACCOUNTS_CAP:
        return []
    text = layers.path(found[1].content).read_text("utf-8", "replace")
    return [line.split(":") for line in text.splitlines() if line.count(":") == fields - 1]
