"""Invented values: of a type, in the manner of a name, from a seed. Nothing of anybody's real data goes in."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import date, timedelta

_FIRST = ("Ada", "Alan", "Barbara", "Edsger", "Frances", "Grace", "Hedy", "John", "Katherine", "Mary", "Niels", "Radia")
_LAST = (
    "Allen",
    "Bohr",
    "Dijkstra",
    "Hopper",
    "Jackson",
    "Johnson",
    "Lamarr",
    "Liskov",
    "Lovelace",
    "Perlman",
    "Turing",
)
_CITIES = ("Arlen", "Brackwater", "Castle Rock", "Elmford", "Northhaven", "Port Amber", "Saltmarsh", "Tallis")
_COUNTRIES = ("AT", "BR", "CA", "CL", "DE", "FR", "IN", "JP", "KE", "NZ", "PT", "US")
_WORDS = (
    *("amber", "basin", "cedar", "delta", "ember", "field", "grove", "harbor", "island", "juniper", "kelp", "lantern"),
    *("meadow", "north", "orchard", "pebble", "quarry", "river", "saffron", "timber", "umber", "valley", "willow"),
)
_EPOCH = date(1950, 1, 1)
_DAYS = 26_000
_AGES = (18, 90)
_YEARS = (1950, 2025)
_INTEGERS = (0, 1000)
_FLOATS = (0.0, 100.0)


class Inventor:
    """Invents; the same seed and the same questions give the same answers on every machine."""

    def __init__(self, seed: int) -> None:
        # Not for secrets: a mock must be the same again.
        self._random = random.Random(f"cloister mock {seed}")  # noqa: S311
        self._texts: Mapping[str, Callable[[], str]] = {
            "email": self._email,
            "mail": self._email,
            "phone": lambda: f"+1 555 {self._random.randrange(10**7):07d}",
            "first": lambda: self._random.choice(_FIRST),
            "last": lambda: self._random.choice(_LAST),
            "surname": lambda: self._random.choice(_LAST),
            "name": lambda: f"{self._random.choice(_FIRST)} {self._random.choice(_LAST)}",
            "city": lambda: self._random.choice(_CITIES),
            "town": lambda: self._random.choice(_CITIES),
            "country": lambda: self._random.choice(_COUNTRIES),
            "address": lambda: f"{self._random.randrange(1, 200)} {self._random.choice(_WORDS).title()} Street",
            "street": lambda: f"{self._random.randrange(1, 200)} {self._random.choice(_WORDS).title()} Street",
            "date": lambda: self.date().isoformat(),
            "birth": lambda: self.date().isoformat(),
            "url": lambda: f"https://{self._random.choice(_WORDS)}.example.org/",
            "sex": lambda: self._random.choice(("female", "male")),
            "gender": lambda: self._random.choice(("female", "male", "other")),
            "id": lambda: self._random.randbytes(6).hex(),
        }

    def _email(self) -> str:
        return f"{self._random.choice(_FIRST).lower()}.{self._random.randrange(1000)}@example.org"

    def value(self, kind: str, name: str) -> bool | int | float | str:
        """A value of a schema's type: ``bool``, ``i128``, ``f64`` or ``string``."""
        match kind:
            case "bool":
                return self.flag()
            case "i128":
                return self.integer(name)
            case "f64":
                return self.number()
            case _:
                return self.text(name)

    def flag(self) -> bool:
        return self._random.random() < 0.5

    def integer(self, name: str = "", *, low: int | None = None, high: int | None = None) -> int:
        """An integer in the manner of ``name`` (an age, a year), not beyond what its type holds."""
        words = _parts(name)
        least, most = _AGES if "age" in words else _YEARS if "year" in words else _INTEGERS
        least = least if low is None else max(low, least)
        most = most if high is None else min(high, most)
        return self._random.randint(least, max(least, most))

    def number(self) -> float:
        return round(self._random.uniform(*_FLOATS), 3)

    def date(self) -> date:
        return _EPOCH + timedelta(days=self._random.randrange(_DAYS))

    def text(self, name: str = "") -> str:
        """A text in the manner of ``name``: an email address, a city; otherwise two words."""
        words = _parts(name)
        for word, invent in self._texts.items():
            if word in words or (len(word) > 3 and word in name.lower()):
                return invent()
        return " ".join(self.words(2))

    def words(self, count: int) -> list[str]:
        return [self._random.choice(_WORDS) for _ in range(count)]

    def sentences(self, count: int) -> str:
        """Sentences of four to nine words."""
        return " ".join(f"{' '.join(self.words(self._random.randint(4, 9))).capitalize()}." for _ in range(count))

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def choice(self, values: list[object]) -> object:
        return self._random.choice(values)


def _parts(name: str) -> frozenset[str]:
    """The words of a column's name: ``patientAge`` and ``patient_age`` hold ``age``."""
    spaced = "".join(f" {c}" if c.isupper() else c if c.isalnum() else " " for c in name)
    return frozenset(spaced.lower().split()) | {name.lower()}
