"""The oci runtime: its command lines, its choice, and enclaves in containers under gVisor where podman and runsc are here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.enclave import test_hostile_iapp as hostile
from tests.enclave import test_runtime as interface
from tests.enclave.images import test_running as images
from tests.enclave.test_runtime import until
from tests.enclave.world import TestPlatform, World

from cloister.enclave import measurement
from cloister.errors import ConfigurationError
from cloister.worker.relay import EnclaveFailed
from cloister.worker.runtimes import oci_choice
from cloister.worker.runtimes.oci import OciRuntime, _is_orphan, _owner, sweep
from cloister.worker.runtimes.oci_engine import Container, Engine, Isolation, build_start, find_isolations, make_root
from cloister.worker.runtimes.oci_guard import find_containers
from cloister.worker.runtimes.view import system_binds, system_links

Make = Callable[..., World]

ALWAYS = {"memory spread over children"}
"""Hostile iApps that every run of the tests tries here; the others are nightly, since a container takes a second to start, and a
fork bomb under gVisor starves every test beside it."""
CONTAINER = Container(
    name="cloister-1-2-3",
    root="/root-folder",
    binds=(("/usr", "/usr"),),
    command=("agent",),
    scratch_bytes=1 << 30,
    memory_bytes=1 << 33,
)


@pytest.fixture(scope="session")
def runtime() -> Iterator[OciRuntime]:
    for program in ("podman", "runsc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    try:
        started = OciRuntime()
    except ConfigurationError as error:
        pytest.skip(f"podman and runsc are here, and this machine lets them start no container: {error.message}")
    yield started
    started.close()


def options(command: list[str], name: str) -> list[str]:
    """Every value that follows ``name``."""
    return [command[place + 1] for place, word in enumerate(command[:-1]) if word == name]


@pytest.mark.parametrize("engine", list(Engine))
@pytest.mark.parametrize("below", ["runsc", "crun"])
def test_every_container_is_shut(engine: Engine, below: str) -> None:
    command = build_start(Isolation(engine, f"/usr/bin/{engine.value}", below), CONTAINER)
    assert options(command, "--network") == ["none"]
    assert options(command, "--ipc") == ["none"]
    assert options(command, "--cap-drop") == ["all"]
    assert options(command, "--runtime") == [below]
    assert options(command, "--memory") == options(command, "--memory-swap") == [str(1 << 33)]
    assert {"--read-only", "--rm"} <= set(command)
    assert "no-new-privileges" in options(command, "--security-opt")
    assert options(command, "--mount") == ["type=bind,source=/usr,target=/usr,readonly"]
    assert options(command, "--tmpfs") == [f"/tmp:rw,nosuid,nodev,mode=1777,size={1 << 30}"]
    assert "--privileged" not in command
    assert not any(word.startswith(("--device", "--publish")) for word in command)
    assert command[-2:] == ["/root-folder", "agent"]


def test_only_gvisors_root_has_capabilities_and_only_the_agent_has_them() -> None:
    gvisor = Isolation(Engine.PODMAN, "podman", "runsc")
    assert "SYS_ADMIN" in options(build_start(gvisor, CONTAINER), "--cap-add")
    assert options(build_start(gvisor, replace(CONTAINER, trusted=False)), "--cap-add") == []
    for plain in (Isolation(Engine.PODMAN, "podman", "crun"), Isolation(Engine.DOCKER, "docker", "runc")):
        command = build_start(plain, CONTAINER)
        assert options(command, "--cap-add") == []
        user = options(command, "--user")[0]
        assert user.split(":")[0] not in ("0", "root")
    # Under podman the container's users are nobody's on this host; docker has no such mapping, so the user itself is nobody's.
    assert options(build_start(Isolation(Engine.PODMAN, "podman", "crun"), CONTAINER), "--uidmap") == [
        "0:1900000000:65536"
    ]
    assert options(build_start(Isolation(Engine.DOCKER, "docker", "runc"), CONTAINER), "--user") == [
        "1900001000:1900001000"
    ]


def test_no_engine_pulls_an_image() -> None:
    docker = build_start(Isolation(Engine.DOCKER, "docker", "runsc"), replace(CONTAINER, root="sha256:" + "ab" * 32))
    assert options(docker, "--pull") == ["never"]
    podman = build_start(Isolation(Engine.PODMAN, "podman", "runsc"), CONTAINER)
    assert options(podman, "--rootfs") == ["/root-folder"]


def test_a_path_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"a comma in .*/a,readonly=false"):
        build_start(
            Isolation(Engine.PODMAN, "podman", "crun"), replace(CONTAINER, binds=(("/a,readonly=false", "/b"),))
        )


def test_gvisor_comes_first_and_podman_before_docker() -> None:
    def find(name: str) -> str | None:
        return None if name == "runc" else f"/bin/{name}"

    def run(command: list[str]) -> tuple[int | None, str]:
        assert command[:2] == ["/bin/docker", "info"]
        return 0, "io.containerd.runc.v2 runc runsc "

    found = find_isolations(find, run, root=True)
    assert [str(each) for each in found] == [
        *("podman with gVisor (runsc)", "docker with gVisor (runsc)", "podman with crun", "docker with runc"),
    ]
    assert find_isolations(lambda _: None, run, root=True) == []


def test_docker_gets_its_root_as_an_image_that_is_made_once(tmp_path: Path) -> None:
    """A docker that keeps what it is given: the image is imported the first time and known by its digest after that."""
    docker = tmp_path / "docker"
    docker.write_text(
        f"#!/bin/sh\ncd {tmp_path}\n"
        'case "$1" in\n'
        '  image) test "$(cat tag 2>/dev/null)" = "$5" && echo sha256:$(sha256sum < archive | cut -d" " -f1) ;;\n'
        "  import) cat > archive; echo $3 > tag; echo x >> imports ;;\n"
        "esac\n"
    )
    docker.chmod(0o755)
    isolation = Isolation(Engine.DOCKER, str(docker), "runsc")
    digests = []
    for number in range(2):
        root = make_root(tmp_path / f"root{number}", system_links(), system_binds())
        digests.append(oci_choice.load_root(isolation, root))
    assert digests[0] == digests[1]
    assert digests[0].startswith("sha256:")
    assert (tmp_path / "imports").read_text() == "x\n"


def test_a_worker_is_known_by_its_number_and_its_beginning() -> None:
    owner = _owner(os.getpid())
    assert not _is_orphan(f"cloister-{owner}-1")
    assert not _is_orphan(f"cloister-oci-{owner}-abc")
    pid = owner.split("-")[0]
    assert _is_orphan(f"cloister-{pid}-1-1")
    assert _is_orphan("cloister-4194304999-1-1")
    assert not _is_orphan("cloister-of-somebody-else")
    assert not _is_orphan("postgres")


def containers() -> list[str]:
    return find_containers("podman", "cloister-")


def ours(runtime: OciRuntime) -> list[str]:
    return [name for name in containers() if name.startswith(f"cloister-{os.getpid()}-")]


READS = """
import json, os, zipfile
seen = {}
for pid in range(1, 64):
    for name in ("mem", "environ", "maps", "root", "cwd"):
        try:
            path = f"/proc/{pid}/{name}"
            if name in ("root", "cwd"):
                seen[path] = str(os.listdir(path))
            elif name == "environ":
                seen[path] = open(path, "rb").read().decode(errors="replace")
            else:
                open(path, "rb").read(16)
        except OSError:
            pass
own = str(os.getpid())
others = {path: what for path, what in seen.items() if path.split("/")[2] not in (own, "self")}
json.dump({"others": others, "uid": os.getresuid(), "groups": os.getgroups(), "root": sorted(os.listdir("/")),
    "gvisor": "Sun Jan 10 15:06:54 PST 2016" in open("/proc/version").read()}, open("/iexec_out/reads.json", "w"))
content = open(os.environ["IEXEC_IN"] + "/" + os.environ["IEXEC_DATASET_FILENAME"], "rb").read()
open("/iexec_out/copy", "wb").write(content[::-1])
try:
    open(os.environ["IEXEC_IN"] + "/" + os.environ["IEXEC_DATASET_FILENAME"], "wb")
    os.rename("/app", "/other")
except OSError as error:
    pass
else:
    raise SystemExit(9)
"""


def test_protected_data_in_and_nothing_of_the_agent_to_be_read(world: Make, runtime: OciRuntime) -> None:
    """One run for all of it: the data is opened and sealed again, and every door that bubblewrap shuts is shut."""
    assert runtime.chosen.isolation.gvisor
    task = world(hostile.PROBES + READS, data=b"a protected table")
    outcome = task.run(runtime)
    assert outcome.cause is None
    files = task.files()
    assert files["copy"] == b"a protected table"[::-1]
    seen, reads = json.loads(files["seen.json"]), json.loads(files["reads.json"])
    assert [name for name, end in seen.items() if end == "allowed"] == []
    assert len(seen["pids"]) <= 3
    assert not any("cloister.enclave.agent" in line for line in seen["environments"])
    assert seen["core"] == [0, 0]
    assert reads["gvisor"]
    assert reads["uid"] == [1000, 1000, 1000]
    assert reads["groups"] == []
    assert not {"jail", "run"} & set(reads["root"])
    # gVisor shows the environment of the sandbox's first process to all; it has none.
    assert "".join(reads["others"].values()) == ""


def test_kill_leaves_no_container(world: Make, runtime: OciRuntime) -> None:
    task = world("import time\nprint('up', flush=True)\ntime.sleep(600)", resources={"seconds": 60})
    process = runtime.launch(task.platform.spec)
    assert len(ours(runtime)) == 1
    failures: list[EnclaveFailed] = []

    def run() -> None:
        try:
            task.run(runtime, process)
        except EnclaveFailed as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert until(lambda: "DATA_DOWNLOADED" in task.reports)
    process.kill()
    thread.join(20)
    assert not thread.is_alive()
    assert failures
    assert ours(runtime) == []
    process.kill()


def test_a_worker_that_is_killed_leaves_nothing(runtime: OciRuntime, tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from cloister.worker.runtimes.oci import OciRuntime\n"
        "from cloister.worker.runtimes.runtime import EnclaveSpec, Platform\n"
        "process = OciRuntime().launch(EnclaveSpec(Platform('simulated')))\n"
        "process.channel.recv(1000)\nprint('up', flush=True)\ntime.sleep(600)\n"
    )
    path = os.pathsep.join([str(measurement.package_root().parent), *sys.path])
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"up\n"
    names = f"cloister-{worker.pid}-"
    assert len(find_containers("podman", names)) == 1
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert until(lambda: not find_containers("podman", names), 20)
    assert until(lambda: not list(tmp_path.iterdir()), 20)
    assert until(lambda: not _running(names))


def _running(text: str) -> list[str]:
    """Programs of this host with ``text`` in their arguments: the engine's, conmon, gVisor's own, the guard."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(line.replace("\0", " "))
    return found


@pytest.mark.nightly
def test_a_sweep_removes_what_both_the_worker_and_its_guard_left(runtime: OciRuntime, platform: TestPlatform) -> None:
    kept = runtime.launch(platform.spec)
    isolation = runtime.chosen.isolation
    name = "cloister-4194304999-7-1"
    folder = Path(oci_choice.engine_environment().get("TMPDIR", "/tmp")) / "cloister-oci-4194304999-7-x"
    root = make_root(folder, system_links(), system_binds())
    try:
        left = replace(CONTAINER, name=name, root=str(root), binds=tuple(system_binds()), command=("/bin/sleep", "600"))
        process = subprocess.Popen(build_start(isolation, left), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert until(lambda: name in containers())
        time.sleep(1)
        sweep(isolation)
        assert name not in containers()
        assert not folder.exists()
        assert process.wait(20) != 0
        assert kept.wait(0) is None
    finally:
        kept.kill()
        shutil.rmtree(folder, ignore_errors=True)


# The suites of the interface, which bubblewrap passes too.


def test_no_key_in_arguments_or_environment(platform: TestPlatform, runtime: OciRuntime) -> None:
    process = runtime.launch(platform.spec)
    try:
        assert b'"kind":"ready"' in interface.ready(process)
        secret = platform.spec.platform.material[3:35]
        seen = b""
        for entry in Path("/proc").iterdir():
            for name in ("cmdline", "environ"):
                try:
                    seen += (entry / name).read_bytes()
                except OSError:
                    continue
        assert b"runsc-sandbox" in seen
        assert secret not in seen
        assert secret.hex().encode() not in seen
    finally:
        process.kill()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.nightly) for name in hostile.CASES]
)
def test_contained(world: Make, runtime: OciRuntime, name: str) -> None:
    hostile.test_contained(world, runtime, name)


@pytest.mark.nightly
def test_environment_of_this_process_does_not_reach_the_enclave(
    world: Make, runtime: OciRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    interface.test_environment_of_this_process_does_not_reach_the_enclave(world, runtime, monkeypatch)


@pytest.mark.nightly
def test_a_thread_that_ends_does_not_take_its_enclave_along(
    platform: TestPlatform, world: Make, runtime: OciRuntime
) -> None:
    interface.test_a_thread_that_ends_does_not_take_its_enclave_along(platform, world, runtime)


@pytest.mark.nightly
def test_several_at_once(platform: TestPlatform, tmp_path: Path, runtime: OciRuntime) -> None:
    interface.test_several_at_once(platform, tmp_path, runtime)


@pytest.mark.nightly
def test_ordinary_python_works(world: Make, runtime: OciRuntime) -> None:
    hostile.test_ordinary_python_works(world, runtime)


@pytest.mark.nightly
def test_root_of_an_image_is_root_without_rights(world: Make, runtime: OciRuntime) -> None:
    script = (
        "id -u; echo kept > /etc/own; cat /etc/own; grep Cap /proc/self/status; cat /proc/self/uid_map\n"
        "(echo x > /dev/new) 2>&1 || true; (echo x > /proc/sys/kernel/hostname) 2>&1 || true; kill -9 1 2>&1 || true; echo $$"
    )
    image = images.shell(images.base.__wrapped__(), "{ " + script + "; } > /iexec_out/result.txt\n", User="0:0")
    done = images.run_image(world, image, runtime)
    assert done.outcome is not None
    lines = done.files()["result.txt"].decode().splitlines()
    assert lines[:2] == ["0", "kept"]
    assert [line.split()[1].strip("0") for line in lines if line.startswith("Cap")] == [""] * 4
    assert ["0", "0", "1"] in [line.split() for line in lines] or ["0", "100000", "1"] in [
        line.split() for line in lines
    ]
    assert sum("ermission denied" in line for line in lines) >= 2
    assert int(lines[-1]) > 1


@pytest.mark.nightly
def test_the_whole_story_in_containers(tmp_path: Path, runtime: OciRuntime) -> None:
    """A live network whose worker starts containers: protect, grant, run, pay, open."""
    command = [sys.executable, "-m", "cloister.cli.main", "demo", "--enclave", "oci", "--json", "-o", "opened"]
    path = os.pathsep.join([str(measurement.package_root().parent), *sys.path])
    environment = os.environ | {"CLOISTER_HOME": str(tmp_path / "home"), "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)
    assert story["simulated"] is True
    assert story["metrics"]["patients"] == 569
    noted = next((tmp_path / "home").rglob("worker/enclaves")).read_text()
    assert noted == f"oci, {runtime.chosen}"
    assert until(lambda: not [name for name in containers() if name not in ours(runtime)], 20)
