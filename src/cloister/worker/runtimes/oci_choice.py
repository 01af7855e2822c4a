"""Which container engine and which kernel below it this machine's enclaves get: tried, not believed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import ConfigurationError, quoted
from cloister.worker.runtimes.oci_engine import (
    GVISOR_VERSION,
    Container,
    Engine,
    Find,
    Isolation,
    Run,
    build_start,
    find_isolations,
)
from cloister.worker.runtimes.view import system_binds

_SECONDS = 60.0
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DOCKER_HOST")
_IMAGE = "cloister-enclave"
_TRIAL_BYTES = 64 << 20
_GVISOR_TRIAL = ("/bin/cat", "/proc/version")
_SANDBOX_TRIAL = ("/usr/bin/bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/echo", "stands")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was tried and works. ``limited``: control groups hold its memory and processes too, not the agent alone."""

    isolation: Isolation
    limited: bool

    def __str__(self) -> str:
        return f"{self.isolation}{'' if self.limited else ', without control groups'}"


def choose_isolation(root: Path, name: str, *, find: Find = shutil.which, run: Run | None = None) -> Chosen:
    """Start the smallest container there is. ``root`` is the folder of ``make_root``, ``name`` the container's.

    Where gVisor is installed and does not work nothing else is taken in its place: that would be less than the operator sees
    installed.

    Raises:
        ConfigurationError: there is no engine, or none starts a container that is fit for an enclave; with its own words.
    """
    run = run or run_engine
    isolations = find_isolations(find, run, root=os.geteuid() == 0)
    if not isolations:
        raise ConfigurationError(
            "no container engine is here: neither podman with runsc, crun or runc, nor a docker that answers",
            hint="apt-get install podman runsc",
        )
    if isolations[0].gvisor:
        isolations = isolations[:1]
    problems: list[str] = []
    for isolation in isolations:
        image = load_root(isolation, root, run)
        for limited in (True, False):
            problem = _try(isolation, image, f"{name}-{int(limited)}", run, limited=limited)
            if not problem:
                return Chosen(isolation, limited)
            problems.append(f"{isolation}: {problem}")
    raise ConfigurationError(
        f"no container that is fit for an enclave starts here: {quoted(problems[-1])}",
        hint="remove runsc to do without gVisor" if isolations[0].gvisor else "install runsc (gVisor)",
    )


def _try(isolation: Isolation, image: str, name: str, run: Run, *, limited: bool) -> str:
    """Why it does not work; empty when it does."""
    container = Container(
        name=name,
        root=image,
        binds=tuple(system_binds()),
        command=_GVISOR_TRIAL if isolation.gvisor else _SANDBOX_TRIAL,
        scratch_bytes=_TRIAL_BYTES,
        memory_bytes=1 << 30,
        limited=limited,
        trusted=False,
    )
    code, said = run(build_start(isolation, container))
    if code is None:
        run([isolation.program, "rm", "--force", name])  # its command was given up, not the container
    if code != 0:
        return said.strip()[-300:] or f"ended with {code}"
    if isolation.gvisor and GVISOR_VERSION not in said:
        # The agent would be given rights that only gVisor's kernel may see.
        return f"what is called runsc is not gVisor: {said.strip()[:100]}"
    return ""


def load_root(isolation: Isolation, root: Path, run: Run | None = None) -> str:
    """What the engine calls the root folder: its path, or the digest of the image made from it, once.

    Raises:
        ConfigurationError: docker does not take it.
    """
    if isolation.engine is Engine.PODMAN:
        return str(root)
    archive = _archive(root)
    tag = f"{_IMAGE}:{hashlib.sha256(archive).hexdigest()[:32]}"
    run = run or run_engine
    for attempt in range(2):
        code, said = run([isolation.program, "image", "inspect", "--format", "{{.Id}}", tag])
        digest = said.strip()
        if code == 0 and digest.startswith("sha256:"):
            return digest
        if attempt == 0:
            _import(isolation, archive, tag)
    raise ConfigurationError(f"docker has no image {tag}", hint="see what docker import says")


def _import(isolation: Isolation, archive: bytes, tag: str) -> None:
    try:
        done = subprocess.run(
            [isolation.program, "import", "-", tag],
            input=archive,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            env=engine_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError("docker does not import the enclave's root folder") from error
    if done.returncode != 0:
        raise ConfigurationError(
            f"docker does not import the enclave's root folder: {quoted(done.stderr.decode(errors='replace').strip())}"
        )


def _archive(root: Path) -> bytes:
    """The root folder as a tar that is the same on every day."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            member = tar.gettarinfo(path, arcname=str(path.relative_to(root)))
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            tar.addfile(member)
    return packed.getvalue()


def run_engine(command: list[str]) -> tuple[int | None, str]:
    """Run an engine's command to its end."""
    try:
        done = subprocess.run(
            command,
            env=engine_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return None, f"did not end within {_SECONDS:g} s"
    except OSError as error:
        return None, error.strerror or "cannot be started"
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr or done.stdout


def engine_environment() -> dict[str, str]:
    """What podman and docker need of this process's environment."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
