"""Probes of what enclaves without hardware run in: namespaces, sandboxes, containers."""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError
from cloister.worker.findings import Finding, State, ask_program
from cloister.worker.machine import Machine, short
from cloister.worker.runtimes.oci_choice import choose_isolation
from cloister.worker.runtimes.oci_engine import make_root
from cloister.worker.runtimes.view import system_binds, system_links

_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_VERSION: Final = 1
_ENGINE: Final = "starts the containers of the oci runtime"


def probe_bubblewrap(machine: Machine) -> Finding:
    head = ("bubblewrap", "bubblewrap, a sandbox")
    gives = "the default runtime, and the inner sandbox of iApps everywhere but under gVisor"
    program = machine.program("bwrap")
    if program is None:
        return Finding(*head, State.ABSENT, "bwrap is not installed", gives, "apt install bubblewrap")
    ran = machine.run(program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true")
    if ran.code == 0:
        return Finding(*head, State.WORKS, "started a sandbox", gives)
    return Finding(*head, State.BROKEN, f"starts no sandbox: {short(ran.said)}", gives, _namespace_advice(machine))


def probe_namespaces(machine: Machine) -> Finding:
    head = ("namespaces", "user namespaces")
    gives = "sandboxes without root"
    program = machine.program("unshare")
    if program is None:
        return Finding(*head, State.ABSENT, "cannot be tried: unshare is missing", gives, "apt install util-linux")
    ran = machine.run(program, "--user", "--map-root-user", "--pid", "--fork", "true")
    if ran.code == 0:
        return Finding(*head, State.WORKS, "made one", gives)
    return Finding(*head, State.BROKEN, short(ran.said), gives, _namespace_advice(machine))


def _namespace_advice(machine: Machine) -> str:
    """The one setting that forbids it here, or all that may."""
    settings = {
        "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
        "kernel.unprivileged_userns_clone": ("0", "1"),
        "user.max_user_namespaces": ("0", "10000"),
    }
    wrong = [
        f"sysctl -w {name}={good}"
        for name, (bad, good) in settings.items()
        if machine.text("/proc/sys/" + name.replace(".", "/", 1)) == bad
    ]
    if wrong:
        return "; ".join(wrong)
    if machine.has("/.dockerenv") or machine.has("/run/.containerenv"):
        return (
            "this is a container: start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
        )
    return "allow user namespaces in this system's security policy"


def probe_landlock(machine: Machine) -> Finding:
    head = ("landlock", "Landlock")
    gives = "one more wall around files, from inside a sandbox; not required"
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION) if sys.platform == "linux" else -1
    if version >= 1:
        return Finding(*head, State.WORKS, f"ABI {version}", gives)
    loaded = machine.text("/sys/kernel/security/lsm")
    advice = f"kernel parameter lsm=landlock{',' + loaded if loaded else ',…'}; Linux 5.13 or later"
    return Finding(*head, State.ABSENT, "not in this kernel, or not enabled", gives, advice)


def probe_podman(machine: Machine) -> Finding:
    head = ("podman", "podman")
    asked = ("info", "--format", "{{.Version.Version}}")
    return ask_program(machine, head, _ENGINE, "podman", asked, "for the oci runtime: apt install podman runsc")


def probe_docker(machine: Machine) -> Finding:
    head = ("docker", "docker")
    asked = ("version", "--format", "{{.Server.Version}}")
    advice = "for the oci runtime where there is no podman: apt install docker.io"
    found = ask_program(machine, head, _ENGINE, "docker", asked, advice)
    if found.state is State.BROKEN:
        advice = "where there is no podman: systemctl start docker; adduser $USER docker, then log in again"
        return Finding(found.name, found.what, found.state, found.seen, found.gives, advice)
    return found


def probe_runsc(machine: Machine) -> Finding:
    head = ("runsc", "gVisor (runsc)")
    gives = "a kernel of its own between iApps and this machine's; the oci runtime takes it when it is here"
    advice = "apt install runsc, or from gVisor's repository (gvisor.dev/docs/user_guide/install)"
    return ask_program(machine, head, gives, "runsc", ("--version",), advice)


def probe_containers(machine: Machine) -> Finding:
    head = ("containers", "containers for enclaves")
    gives = "the oci runtime"
    if machine.program("podman") is None and machine.program("docker") is None:
        return Finding(*head, State.ABSENT, "neither podman nor docker", gives, "apt install podman runsc")

    patient = replace(machine, seconds=4 * machine.seconds)  # an engine's first start makes its storage

    def run(command: list[str]) -> tuple[int | None, str]:
        ran = patient.run(*command)
        return ran.code, ran.said

    with tempfile.TemporaryDirectory(prefix="cloister-doctor-") as folder:
        Path(folder).chmod(0o711)
        root = make_root(Path(folder) / "root", system_links(), system_binds())
        name = f"cloister-doctor-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            chosen = choose_isolation(root, name, find=machine.program, run=run)
        except ConfigurationError as error:
            return Finding(*head, State.BROKEN, short(error.message), gives, error.hint)
    return Finding(*head, State.WORKS, f"started one: {chosen}", gives)
