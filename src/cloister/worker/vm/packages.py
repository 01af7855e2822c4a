"""The Debian packages that the image is made of: which, in which version, and the files of theirs that it takes.

A package is downloaded, never installed. apt checks it against Debian's signed lists; its SHA-256 goes into the image's
manifest, and a lock made of that manifest admits nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from cloister.errors import ConfigurationError, NotFound, UnavailableError, VerificationError, quoted

KERNEL = "linux-image-6.12-cloud-amd64"
"""The name that stands for Debian's newest kernel of this line: configfs-tsm is there from 6.7 on."""
OTHERS = (
    "bubblewrap",
    "dash",
    "libbz2-1.0",
    "libc6",
    "libcap2",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpcre2-8-0",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libselinux1",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "ovmf",
    "python3.11-minimal",
    "zlib1g",
)
_DOWNLOAD_SECONDS = 600.0
_LOOK_SECONDS = 60.0
_ENVIRONMENT = ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "APT_CONFIG")
_VERSION = re.compile(r"[A-Za-z0-9.+:~-]{1,128}")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_URI = re.compile(r"'[^']{1,500}' (\S{1,300}) ([0-9]{1,12}) SHA256:([0-9a-f]{64})")
_PIECE = 1 << 20

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One Debian package. ``sha256`` is of the .deb file, 64 hex digits."""

    name: str
    version: str
    sha256: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not _VERSION.fullmatch(self.version):
            raise VerificationError(f"not a Debian package and version: {quoted(f'{self.name} {self.version}')}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise VerificationError(f"not a SHA-256 of {self.name}: {quoted(self.sha256)}")


def resolve_packages() -> tuple[Package, ...]:
    """Ask apt for the newest version of every package, the kernel's concrete name first.

    Raises:
        ConfigurationError: this is no Debian with apt for amd64. NotFound: a package that apt does not know.
    """
    return tuple(_resolve(dict.fromkeys((_kernel_name(), *OTHERS))))


def fetch_packages(packages: Iterable[Package], cache: Path, announce: Announce) -> dict[Package, Path]:
    """The .deb file of each, from ``cache`` or else by apt into it; every file's SHA-256 is checked, cached or not.

    Raises:
        ConfigurationError: no apt. NotFound: the version is not to be had any more. UnavailableError: no network, no
        room. VerificationError: other bytes than the lock names (``lock-mismatch``).
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = {package: cache / f"{package.sha256}.deb" for package in packages}
    missing = [
        package for package, place in found.items() if not (place.is_file() and _sha256(place) == package.sha256)
    ]
    if missing:
        announce(f"downloading {len(missing)} Debian packages")
        _download(missing, cache)
    return found


@contextmanager
def package_files(deb: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]]:
    """The members of a .deb's file tree, in its order, each with its content when it is a file."""
    process = subprocess.Popen(
        [_program("dpkg-deb", "dpkg"), "--fsys-tarfile", str(deb)],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        if process.stdout is None:
            raise UnavailableError("dpkg-deb has no output")
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield ((member, archive.extractfile(member) if member.isreg() else None) for member in archive)
    except tarfile.TarError as error:
        raise VerificationError(f"{deb.name} is not a package that dpkg-deb can read") from error
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _kernel_name() -> str:
    architecture = _run([_program("dpkg", "dpkg"), "--print-architecture"]).strip()
    if architecture != "amd64":
        raise ConfigurationError(f"the image is for amd64 and this machine is {quoted(architecture)}")
    shown = _run([_program("apt-cache", "apt"), "show", "--no-all-versions", KERNEL], tolerant=True)
    if match := re.search(r"^Depends:.*?(linux-image-[a-z0-9.+-]{1,80}-cloud-amd64)", shown, re.MULTILINE):
        return match.group(1)
    raise NotFound(
        f"apt knows no package {KERNEL}",
        hint="the image is built on Debian 12 with its security updates: apt-get update",
    )


def _resolve(wanted: Mapping[str, str | None]) -> list[Package]:
    """What apt would download for each name, in the version named or the newest."""
    names = [name if version is None else f"{name}={version}" for name, version in wanted.items()]
    with tempfile.TemporaryDirectory(prefix="cloister-apt-") as folder:
        # One call for all takes seconds less; it says nothing of the others when one is gone.
        printed = _run([*_apt(), "download", "--print-uris", *names], folder=Path(folder), tolerant=True)
        found = _parse_uris(printed)
        for name, each in zip(wanted, names, strict=True):
            if name not in found:
                found |= _parse_uris(
                    _run([*_apt(), "download", "--print-uris", each], folder=Path(folder), tolerant=True)
                )
            if name not in found:
                raise NotFound(
                    f"apt does not have {each.replace('=', ' ')}",
                    hint="apt-get update; the image is built on Debian 12 with its security updates",
                )
    return [found[name] for name in wanted]


def _parse_uris(printed: str) -> dict[str, Package]:
    found = {}
    for match in _URI.finditer(printed):
        parts = unquote(match.group(1)).removesuffix(".deb").split("_")
        if len(parts) == 3:
            found[parts[0]] = Package(parts[0], parts[1], match.group(3))
    return found


def _download(packages: list[Package], cache: Path) -> None:
    if not shutil.which("apt-get"):
        raise _missing("apt-get", "apt")
    for package, known in zip(packages, _resolve({each.name: each.version for each in packages}), strict=True):
        if known != package:
            raise VerificationError(
                f"{package.name} {package.version} is {known.sha256[:16]}… here and {package.sha256[:16]}… in the lock",
                code="lock-mismatch",
            )
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as folder:
        wanted = [f"{package.name}={package.version}" for package in packages]
        _run([*_apt(), "download", *wanted], folder=Path(folder), seconds=_DOWNLOAD_SECONDS)
        files = {_sha256(path): path for path in Path(folder).glob("*.deb")}
        for package in packages:
            if package.sha256 not in files:
                raise UnavailableError(
                    f"apt did not bring {package.name} {package.version} with the SHA-256 {package.sha256[:16]}…",
                    hint="is the network there, and room on the disk?",
                )
            files[package.sha256].replace(cache / f"{package.sha256}.deb")


def _apt() -> list[str]:
    # apt's own user may not write to the folder; what is downloaded is checked here and by apt.
    return [_program("apt-get", "apt"), "-q", "-o", "APT::Sandbox::User=root"]


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise _missing(name, package)
    return found


def _missing(name: str, package: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is not here", hint=f"the image is built on Debian 12, where {name} is in the package {package}"
    )


def _environment() -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **kept, "LC_ALL": "C"}


def _run(
    command: list[str], *, folder: Path | None = None, tolerant: bool = False, seconds: float = _LOOK_SECONDS
) -> str:
    """Run a tool of Debian's. ``tolerant``: an error of its own is an empty answer."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(_environment()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{Path(command[0]).name} did not end within {seconds:g} seconds") from error
    except OSError as error:
        raise UnavailableError(f"{Path(command[0]).name} did not start: {error.strerror}") from error
    if done.returncode != 0 and not tolerant:
        said = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("E:")), "no reason given")
        raise UnavailableError(f"{Path(command[0]).name} failed: {quoted(said)}", hint="is there a network, and room?")
    return done.stdout if done.returncode == 0 else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
