"""Strict reading of the values in an owner's rules: every complaint names the path of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from cloister.attestation.tcb import ANY
from cloister.errors import DecodeError, TooLarge, quoted

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TEXT_CAP: Final = 128
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
_SHOWN: Final = 40
_NUMBER_MAX: Final = 2**64
_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the rules a value stands, as ``any_of[0].tcb.grace_days``."""

    path: str

    @property
    def text(self) -> str:
        """The path for people."""
        return self.path or "the rules"

    def at(self, name: str | int) -> Place:
        """A member or an element of what stands here."""
        if isinstance(name, int):
            return Place(f"{self.path}[{name}]")
        shown = quoted(name[:_SHOWN])
        return Place(f"{self.path}.{shown}" if self.path else shown)

    def error(self, complaint: str, hint: str | None = None) -> DecodeError:
        """What is wrong here."""
        return DecodeError(f"{self.text} {complaint}", code="rules-malformed", hint=hint)

    def hex(self, text: str) -> bytes:
        """Read hex, with or without 0x."""
        digits = text.removeprefix("0x")
        if _HEX.fullmatch(digits) is None:
            raise self.error(f"is no hex: {quoted(text[:_SHOWN])}")
        return bytes.fromhex(digits)

    def check_size(self, value: bytes, size: int | None) -> None:
        """Refuse a value of another length."""
        if size is not None and len(value) != size:
            raise self.error(f"has {len(value)} bytes instead of {size}", "give the whole value; no prefix is accepted")
        if len(value) > 64:
            raise self.error(f"has {len(value)} bytes, the most is 64")


def load_object(value: object, place: Place, *, width: int) -> Members:
    """Take an object to read it.

    Raises:
        DecodeError: anything else. TooLarge: more members than ``width``.
    """
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise place.error(f"is {_kind(value)} where an object belongs")
    if len(value) > width:
        raise TooLarge(f"{place.text} has {len(value)} members, the most is {width}", code="rules-too-large")
    return Members(value, place, width)


@dataclass(slots=True)
class Members:
    """The members of one object; what nobody asked for is unknown."""

    _value: dict[str, object]
    place: Place
    _width: int
    _read: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        """Whether the member is there."""
        return name in self._value

    def names(self) -> list[str]:
        """The members' names, sorted, where any name may stand."""
        for name in self._value:
            if not 0 < len(name) <= 64 or not name.isprintable():
                raise self.place.at(name).error("is no name", "at most 64 printable characters")
        self._read.update(self._value)
        return sorted(self._value)

    def check_all_read(self) -> None:
        """Refuse a member that means nothing here."""
        for name in self._value:
            if name not in self._read:
                known = ", ".join(sorted(self._read))
                raise self.place.at(name).error("is unknown", f"known here: {known}")

    def version(self, name: str, version: int) -> None:
        """Refuse another version than this one, which is also the default."""
        value = self._take(name, version)
        if isinstance(value, bool) or not isinstance(value, int) or value != version:
            raise self.place.at(name).error(f"is another than {version}, the only one that is read here")

    def member(self, name: str) -> Members | None:
        """An object, None where it is absent."""
        value = self._take(name)
        if name not in self._value:
            return None
        return load_object(value, self.place.at(name), width=self._width)

    def items(self, name: str) -> Iterator[tuple[Place, object]]:
        """The elements of a list that is not empty, with their places."""
        value, place = self._take(name), self.place.at(name)
        if not isinstance(value, list):
            raise place.error(f"is {_kind(value)} where a list belongs")
        if not value:
            raise place.error("is empty, so it would refuse everything")
        if len(value) > self._width:
            raise TooLarge(f"{place.text} has {len(value)} elements, the most is {self._width}", code="rules-too-large")
        for index, item in enumerate(value):
            yield place.at(index), item

    def texts(self, name: str) -> Iterator[tuple[Place, str]]:
        """The texts of a list."""
        for place, item in self.items(name):
            if not isinstance(item, str):
                raise place.error(f"is {_kind(item)} where a text belongs")
            if not 0 < len(item) <= 2 * _TEXT_CAP or not item.isprintable():
                raise place.error("is empty, too long or unprintable")
            yield place, item

    def text_set(self, name: str, *, among: frozenset[str] | None = None) -> frozenset[str]:
        """Texts, each once; ``among`` names those that are known."""
        found: set[str] = set()
        for place, text in self.texts(name):
            if among is not None and text not in among:
                raise place.error(f"is unknown: {quoted(text[:_SHOWN])}", f"known: {', '.join(sorted(among))}")
            if len(text) > _TEXT_CAP:
                raise place.error(f"has {len(text)} characters, the most is {_TEXT_CAP}")
            if text in found:
                raise place.error("stands there twice", "leave it out")
            found.add(text)
        return frozenset(found)

    def hex_set(self, name: str, *, size: int | None = None) -> frozenset[bytes]:
        """Byte strings in hex, each once, of one length."""
        found: set[bytes] = set()
        for place, text in self.texts(name):
            value = place.hex(text)
            place.check_size(value, size)
            if value in found:
                raise place.error("stands there twice", "leave it out")
            found.add(value)
        return frozenset(found)

    def is_any(self, name: str) -> bool:
        """Whether the explicit word ``any`` stands there."""
        if self._value.get(name) != ANY.value:
            return False
        self._read.add(name)
        return True

    def count(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number."""
        if name not in self._value:
            self._read.add(name)
            return default
        value, place = self._take(name), self.place.at(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise place.error(f"is {_kind(value)} where a whole number belongs")
        if not least <= value <= most:
            shown = str(value) if abs(value) <= _NUMBER_MAX else "far out of range"
            raise place.error(f"is {shown}, it must be {least} to {most}")
        return value

    def choice(self, name: str, words: type[_Choice], *, nullable: bool = False) -> _Choice | None:
        """One word of an enumeration; None where it is absent, or null and ``nullable``."""
        value = self._take(name)
        if name not in self._value or (nullable and value is None):
            return None
        if not isinstance(value, str) or value not in list(words):
            shown = quoted(value[:_SHOWN]) if isinstance(value, str) else _kind(value)
            raise self.place.at(name).error(f"is unknown: {shown}", f"known: {', '.join(words)}")
        return words(value)

    def scalars(self, name: str) -> list[bool | int | str]:
        """One value, or a list of several, each once."""
        value = self._take(name)
        pairs = list(self.items(name)) if isinstance(value, list) else [(self.place.at(name), value)]
        found: list[bool | int | str] = []
        for place, item in pairs:
            if not isinstance(item, bool | int | str):
                raise place.error(f"is {_kind(item)} where true, false, a whole number or a text belongs")
            if isinstance(item, str) and (len(item) > 2 * _TEXT_CAP or not item.isprintable()):
                raise place.error("is too long or unprintable")
            if isinstance(item, int) and abs(item) > _NUMBER_MAX:
                raise place.error("is a number far out of range")
            if item == ANY.value:
                raise place.error('is the word "any" in a list', 'write "any" in place of the list')
            # 1 and true are equal to Python: side by side one would swallow the other.
            if item in found:
                raise place.error("stands there twice", "leave it out")
            found.append(item)
        return found

    def _take(self, name: str, default: object = None) -> object:
        self._read.add(name)
        return self._value.get(name, default)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return "a number"
        case float():
            return "a fraction"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "something else"
