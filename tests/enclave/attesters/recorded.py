"""A configfs-tsm tree on a plain folder: files as the kernel shows them, moved on as its driver moves them."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cloister.enclave.attesters.tsm import KernelFiles

VCEK, VLEK, ASK, ARK = (
    "63da758d-e664-4564-adc5-f4b93be8accd",
    "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "c0b406a4-a803-4952-9743-3fb6014cd0ae",
)


def build_table(entries: dict[str, bytes]) -> bytes:
    """``auxblob`` of sev_guest: GUID, offset and length of each, a zero entry, the contents."""
    offset = 24 * (len(entries) + 1)
    head, contents = b"", b""
    for name, content in entries.items():
        place = offset + len(contents)
        head += uuid.UUID(name).bytes + place.to_bytes(4, "little") + len(content).to_bytes(4, "little")
        contents += content
    return head + bytes(24) + contents


@dataclass
class Driver(KernelFiles):
    """Does what the kernel does at each access. ``report`` answers report data with a report; ``before`` is called with the
    attribute's name before each access and may raise, or write as another program would.
    """

    provider: str
    report: Callable[[bytes], bytes]
    table: bytes = b""
    before: Callable[[str, Path], None] = lambda name, folder: None
    accesses: list[str] = field(default_factory=list)

    def make(self, folder: Path) -> None:
        self.accesses.append("mkdir")
        self.before("mkdir", folder)
        folder.mkdir()
        for name, content in (("provider", f"{self.provider}\n"), ("generation", "0\n")):
            (folder / name).write_text(content)
        names = ("inblob", "outblob", *(("auxblob", "privlevel") if self.provider == "sev_guest" else ()))
        for name in names:
            (folder / name).touch()

    def remove(self, folder: Path) -> None:
        self.accesses.append("rmdir")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    def read(self, path: Path, cap: int) -> bytes:
        self.accesses.append(path.name)
        self.before(path.name, path.parent)
        if path.name in ("outblob", "auxblob"):
            given = (path.parent / "inblob").read_bytes()
            if len(given) != 64:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            path.write_bytes(self.report(given) if path.name == "outblob" else self.table)
        return super().read(path, cap)

    def write(self, path: Path, content: bytes) -> None:
        self.accesses.append(path.name)
        self.before(path.name, path.parent)
        path.write_bytes(b"")
        super().write(path, content)
        self.advance(path.parent)

    def advance(self, folder: Path) -> None:
        """One more write, by whomever."""
        path = folder / "generation"
        path.write_text(f"{int(path.read_text()) + 1}\n")
