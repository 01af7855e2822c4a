"""Container images made by hand, byte by byte where it matters: layers, documents, archives, and a small root of this
machine's own programs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def entry(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    **more: Any,
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry of a layer."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, link, mode
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def layer(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer's tar, as it is unpacked."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@dataclass
class HandMade:
    """An image whose parts may be anything; ``archive`` writes what ``blobs`` holds."""

    layers: list[bytes]
    config: dict[str, Any] = field(default_factory=dict)
    """The part ``config`` of the configuration."""
    platform: tuple[str, str] = ("linux", ARCHITECTURE)
    media: tuple[str, str, str] = (MANIFEST, CONFIG, LAYER)
    packed: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    digest: bytes = b""

    def __post_init__(self) -> None:
        packed = [gzip.compress(one, 1, mtime=0) if self.packed else one for one in self.layers]
        system, machine = self.platform
        configuration = {
            "os": system,
            "architecture": machine,
            "config": self.config,
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in self.layers],
            },
        }
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": self.media[0],
            "config": self.add(json.dumps(configuration).encode(), self.media[1]),
            "layers": [self.add(one, self.media[2]) for one in packed],
        }
        self.settle(self.manifest)

    def add(self, content: bytes, media: str) -> dict[str, Any]:
        """Keep a blob; answers with its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    def settle(self, document: dict[str, Any]) -> None:
        """Make a document the one that the chain names."""
        described = self.add(json.dumps(document).encode(), document.get("mediaType", MANIFEST))
        self.digest = bytes.fromhex(described["digest"].removeprefix("sha256:"))

    def archive(self, **others: bytes) -> bytes:
        """The archive, as skopeo writes it."""
        entries = [folder("blobs/"), folder("blobs/sha256/")]
        entries += [entry(f"blobs/sha256/{digest}", content) for digest, content in sorted(self.blobs.items())]
        listed = {
            "schemaVersion": 2,
            "manifests": [{"mediaType": MANIFEST, "digest": f"sha256:{self.digest.hex()}", "size": 1}],
        }
        entries += [entry("index.json", json.dumps(listed).encode()), entry("oci-layout", b"{}")]
        entries += [entry(name, content) for name, content in others.items()]
        return layer(*entries, form=tarfile.USTAR_FORMAT)


def machine_root(*programs: str, more: tuple[str, ...] = ()) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Programs of this machine and the libraries that they need, in ``/bin`` and where libraries are."""
    found: dict[str, Path] = {}
    for name in programs:
        path = Path(shutil.which(name) or f"/bin/{name}").resolve()
        found[f"bin/{name}"] = path
        told = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/[^ ]+) \(0x", told):
            found[library.lstrip("/")] = Path(library).resolve()
    for path in more:
        found[path.lstrip("/")] = Path(path)
    folders = sorted({str(parent) for name in found for parent in Path(name).parents} - {"."})
    entries = [folder(f"{name}/") for name in folders]
    return entries + [entry(name, path.read_bytes(), mode=0o755) for name, path in sorted(found.items())]
