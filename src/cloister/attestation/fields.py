"""Typed reads from a decoded CBOR map: each refuses by naming the member, and nothing is converted."""

from __future__ import annotations

from cloister.attestation.cbor import Value
from cloister.attestation.issuance import DatasetUse
from cloister.errors import CloisterError, DecodeError

MAX_CAUSE = 256
REGISTERED: dict[str | int, str] = {6: "iat", 8: "cnf", 10: "nonce", 265: "eat_profile"}


class Fields:
    """The members of one map. ``what`` is the word for a member in messages, ``part`` the document's name in the errors'
    ``part``, ``code`` that of every refusal.

    Every read raises DecodeError, whose ``part`` names the member, for a value of another type, size or range.
    """

    def __init__(self, values: dict[Value, Value], *, what: str, part: str, code: str) -> None:
        self._values = values
        self._what = what
        self._part = part
        self._code = code

    def refusal(self, label: str | int) -> CloisterError:
        """What to raise for a member."""
        name = REGISTERED.get(label, label)
        error = DecodeError(f"the {self._what} {name} has the wrong type, size or range", code=self._code)
        error.part = f"{self._part}.{name}"
        return error

    def value(self, label: str | int) -> Value:
        """A member as it is."""
        return self._values[label]

    def has(self, label: str | int) -> bool:
        """Whether an optional member is there."""
        return label in self._values

    def raw(self, label: str | int, size: int | None, *, cap: int = 1 << 20) -> bytes:
        """Bytes of one size, or of at most ``cap``."""
        return self.check_raw(self._values[label], size, label, cap=cap)

    def check_raw(self, value: Value, size: int | None, label: str | int, *, cap: int = 1 << 20) -> bytes:
        """The same for a value inside a member."""
        if not isinstance(value, bytes) or (size is not None and len(value) != size) or len(value) > cap:
            raise self.refusal(label)
        return value

    def number(self, label: str | int) -> int:
        """A number that JSON keeps exactly."""
        return self.check_number(self._values[label], label)

    def check_number(self, value: Value, label: str | int) -> int:
        """The same for a value inside a member."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
            raise self.refusal(label)
        return value

    def check_cause(self, value: Value, label: str) -> str | None:
        """A short text, or nothing."""
        if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_CAUSE):
            return value
        raise self.refusal(label)

    def use(self, value: Value, label: str) -> DatasetUse | None:
        """Protected data that was released, or None."""
        match value:
            case None:
                return None
            case [bytes(address), bytes(checksum), order_hash, policy_hash]:
                return DatasetUse(
                    self.check_raw(address, 20, label),
                    self.check_raw(checksum, 32, label),
                    None if order_hash is None else self.check_raw(order_hash, 32, label),
                    None if policy_hash is None else self.check_raw(policy_hash, 32, label),
                )
            case _:
                raise self.refusal(label)
