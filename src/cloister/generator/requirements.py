"""``requirements.in`` and ``requirements.txt`` of an iApp, read strictly: what an author wants, and what was locked.

Sources: PEP 503 (names), PEP 508 (requirements), pip's requirements file format.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import InputError, TooLarge, quoted

WANTED_NAME = "requirements.in"
LOCK_NAME = "requirements.txt"
LOCK_HINT = "cloister iapp lock"
SOURCE_LINE = f"# sha256 of {WANTED_NAME}: "

_CAP = 4 << 20
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[A-Za-z0-9._,\s-]*\])?\s*(.*)", re.DOTALL)
_VERSIONS = re.compile(r"((===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*,?\s*)*")
_PIN = re.compile(r"==\s*([A-Za-z0-9.+!_-]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_ANY_HASH = re.compile(r"--hash=\S+")
_COMMENT = re.compile(r"(^|\s)#.*$")
_RUN = re.compile(r"[-_.]+")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a requirements file. ``name`` is in its one spelling, ``length`` that of the one in ``text``; ``rest``:
    versions and markers, as they stand.
    """

    name: str
    rest: str
    text: str
    length: int


@dataclass(frozen=True, slots=True)
class Locked:
    """A package at one version, with the SHA-256 of each file that may be taken for it, 64 hex digits each."""

    name: str
    version: str
    hashes: tuple[str, ...]


def normal_name(name: str) -> str:
    """A package's name in its one spelling (PEP 503)."""
    return _RUN.sub("-", name).lower()


def load_wanted(folder: Path) -> tuple[Requirement, ...]:
    """Read ``requirements.in``; nothing when there is none.

    Raises:
        InputError: a line that cannot be locked, by its number, and what to write in its place.
    """
    path = folder / WANTED_NAME
    if not path.is_file():
        return ()
    return tuple(_wanted(path, number, line) for number, line in _lines(path))


def wanted_digest(wanted: tuple[Requirement, ...]) -> str:
    """What the lock says of the ``requirements.in`` that it is of: comments, order and spaces do not count."""
    lines = sorted({item.name + "".join(item.text[item.length :].split()) for item in wanted})
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_lock(folder: Path) -> tuple[Locked, ...]:
    """Read ``requirements.txt`` and prove that it locks: every line one version, every version with SHA-256 hashes, and
    nothing that ``requirements.in`` does not want any more.

    Raises:
        InputError: it does not.
    """
    path = folder / LOCK_NAME
    locked = tuple(_locked(path, number, line) for number, line in _lines(path))
    wanted = load_wanted(folder)
    said = _source_digest(path)
    if said is not None and said != wanted_digest(wanted):
        raise InputError(f"{path} is older than {WANTED_NAME}", hint=LOCK_HINT, code="lock-stale")
    names = {item.name for item in locked}
    for item in wanted:
        if item.name not in names and ";" not in item.rest:  # a marker may leave it out
            raise InputError(f"{path} does not lock {quoted(item.name)}", hint=LOCK_HINT, code="lock-stale")
    return locked


def _wanted(path: Path, number: int, line: str) -> Requirement:
    where = f"{path.name} line {number}"
    word = line.split(maxsplit=1)[0]
    if word in ("-e", "--editable") or word.startswith("-e"):
        raise _refused(where, word, "is an editable install, which is no fixed version", "name a released version")
    if word.startswith("-"):
        raise _refused(where, word, "is an option of pip, which a lock cannot hold", "set it in pip's own settings")
    if "://" in line or line.startswith(("git+", "hg+", "svn+", "bzr+")):
        raise _refused(where, line, "is an address, and not a version of a package", "name a released version")
    if re.search(r"\S\s*@\s*\S", line):
        raise _refused(where, line, "is an address, and not a version of a package", "name a released version")
    match = _NAME.fullmatch(line)
    if word.startswith((".", "/", "~")) or word.endswith((".whl", ".zip", ".tar.gz")) or "/" in word or "\\" in word:
        raise _refused(where, word, "is a path on this machine", "copy the code into the iApp's folder")
    if match is None:
        raise _refused(where, line, "is no requirement", "write NAME or NAME==VERSION")
    versions = match[3].partition(";")[0].strip().removeprefix("(").removesuffix(")")
    if not _VERSIONS.fullmatch(versions):
        raise _refused(where, line, "is no requirement", "write NAME or NAME==VERSION")
    return Requirement(normal_name(match[1]), match[3].strip(), line, len(match[1]))


def _locked(path: Path, number: int, line: str) -> Locked:
    where = f"{path.name} line {number}"
    if line.startswith("-"):
        raise _refused(where, line.split()[0], "is an option of pip, which a lock may not hold", LOCK_HINT)
    bare = _ANY_HASH.sub("", line).strip()
    hashes = tuple(sorted(set(_HASH.findall(line))))
    if not hashes or len(_ANY_HASH.findall(line)) != len(_HASH.findall(line)):
        raise InputError(f"{path} has no hashes: {quoted(bare)} needs --hash=sha256:…", hint=LOCK_HINT)
    match = _NAME.fullmatch(bare)
    rest = match[3].partition(";")[0].strip() if match else ""
    pin = _PIN.fullmatch(rest)
    if match is None or pin is None or "*" in rest:
        raise _refused(where, bare, "is not one version of a package", LOCK_HINT)
    return Locked(normal_name(match[1]), pin[1], hashes)


def _refused(where: str, what: str, why: str, hint: str) -> InputError:
    return InputError(f"{where}: {quoted(_bare(what))} {why}", hint=hint, code="cannot-lock")


def _bare(text: str) -> str:
    """Without what stands before an ``@`` in an address: it may be a password."""
    return re.sub(r"//[^/@\s]*@", "//…@", text)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first line: continued ones joined, comments and empty ones left out."""
    held, start = "", 0
    for number, raw in enumerate(_text(path).splitlines(), 1):
        start = start or number
        if raw.endswith("\\"):
            held += _COMMENT.sub("", raw[:-1]) + " "
            continue
        line = (held + _COMMENT.sub("", raw)).strip()
        if line:
            yield start, line
        held, start = "", 0
    if held.strip():
        yield start, held.strip()


def _source_digest(path: Path) -> str | None:
    for line in _text(path).splitlines():
        if line.startswith(SOURCE_LINE):
            return line.removeprefix(SOURCE_LINE).strip()
    return None


def _text(path: Path) -> str:
    if path.stat().st_size > _CAP:
        raise TooLarge(f"{path} is larger than {_CAP} bytes")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8") from error
