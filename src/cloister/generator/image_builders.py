"""The program that builds container images on this machine: Podman, Buildah or Docker, whichever is there.

Each leaves an archive with an OCI image layout. Times are zero, history is left out, and nothing of an earlier build is used
again, so that the same source gives the same image as far as the program is able.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import ConfigurationError, InputError, UnavailableError, quoted

BUILD_SECONDS = 3600.0
_SAVE_SECONDS = 1800.0
_TOLD_LINES = 6
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINERS_STORAGE_CONF")


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build. ``network`` is what the program's ``--network`` takes, None for its default."""

    context: Path
    file: Path
    label: str
    arguments: Mapping[str, str]
    network: str | None = None


@dataclass(frozen=True, slots=True)
class Builder:
    """A program that builds images; its name says which."""

    name: str
    program: str

    def build(self, request: BuildRequest, work: Path) -> Path:
        """Build, and write an archive into the folder ``work``.

        Raises:
            InputError: the image does not build. UnavailableError: it takes too long.
        """
        note, archive = work / "image.id", work / "image.tar"
        self._run([*self._build_words(request, note), str(request.context)], BUILD_SECONDS, "building the image")
        image = note.read_text().strip()
        try:
            self._run(self._save_words(image, archive), _SAVE_SECONDS, "writing the image")
        finally:
            # What else this machine builds is its owner's; this image was only a way to the archive.
            subprocess.run(
                [self.program, "rmi", image],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment(),
                check=False,
                timeout=_SAVE_SECONDS,
            )
        return archive

    def _build_words(self, request: BuildRequest, note: Path) -> list[str]:
        words = [self.program, "build", "--file", str(request.file), "--iidfile", str(note), "--label", request.label]
        words += ["--no-cache"]
        if self.name == "docker":
            words += ["--build-arg", "SOURCE_DATE_EPOCH=0", "--quiet"]
        else:
            words += ["--format", "oci", "--layers=false", "--omit-history", "--timestamp", "0", "--pull=missing"]
        if request.network is not None:
            words += ["--network", request.network]
        for name, value in sorted(request.arguments.items()):
            words += ["--build-arg", f"{name}={value}"]
        return words

    def _save_words(self, image: str, archive: Path) -> list[str]:
        match self.name:
            case "docker":
                return [self.program, "save", "--output", str(archive), image]
            case "buildah":
                return [self.program, "push", "--quiet", image, f"oci-archive:{archive}"]
            case _:
                return [self.program, "save", "--quiet", "--format", "oci-archive", "--output", str(archive), image]

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return kept | {"SOURCE_DATE_EPOCH": "0", "DOCKER_BUILDKIT": "1"}

    def _run(self, words: list[str], seconds: float, what: str) -> None:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=self._environment(),
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"{what} with {self.name} took longer than {seconds:g} seconds") from error
        except OSError as error:
            raise ConfigurationError(f"{self.program} cannot be started: {error.strerror}") from error
        if done.returncode != 0:
            told = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
            last = "; ".join(quoted(line) for line in told[-_TOLD_LINES:]) or "no reason given"
            raise InputError(f"{what} with {self.name} failed: {last}", hint=f"{self.name} build shows all of it")


def find_builder() -> Builder:
    """The first of the three that is installed.

    Raises:
        ConfigurationError: none is.
    """
    for name in ("podman", "buildah", "docker"):
        program = shutil.which(name)
        if program is not None:
            return Builder(name, program)
    raise ConfigurationError(
        "no program that builds container images is installed: podman, buildah or docker",
        hint="apt-get install podman",
    )
