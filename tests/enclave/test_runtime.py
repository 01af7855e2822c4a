"""The bubblewrap runtime: what its processes show, and that none outlives its reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.enclave.world import HELLO, TestPlatform, World

from cloister.enclave import measurement
from cloister.enclave.processes import tree_of
from cloister.errors import ConfigurationError
from cloister.worker.relay import EnclaveFailed
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime
from cloister.worker.runtimes.runtime import EnclaveProcess
from cloister.worker.runtimes.view import AGENT_PARTS

Make = Callable[..., World]


def processes(text: str) -> list[int]:
    """Processes whose command line holds ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def ready(process: EnclaveProcess) -> bytes:
    process.channel.settimeout(20)
    return process.channel.recv(1 << 16)


def test_no_key_in_arguments_or_environment(platform: TestPlatform, runtime: BubblewrapRuntime) -> None:
    process = runtime.launch(platform.spec)
    try:
        assert b'"kind":"ready"' in ready(process)
        process.channel.sendall(b"")
        material = platform.spec.platform.material
        secret = material[3:35]
        seen = b""
        for pid in tree_of(os.getpid()):
            for name in ("cmdline", "environ"):
                try:
                    seen += Path(f"/proc/{pid}/{name}").read_bytes()
                except OSError:
                    continue
        assert b"cloister.enclave.agent" in seen
        assert secret not in seen
        assert secret.hex().encode() not in seen
        assert secret.hex() not in repr(platform.spec)
    finally:
        process.kill()


def test_environment_of_this_process_does_not_reach_the_enclave(
    world: Make, runtime: BubblewrapRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_TEST_SECRET", "leaked")
    code = HELLO + "open('/iexec_out/env.txt', 'w').write(str(dict(os.environ)))"
    task = world(code)
    task.run(runtime)
    assert b"leaked" not in task.files()["env.txt"]
    assert b"PYTHONPATH" in task.files()["env.txt"]


def test_kill_ends_everything(world: Make, runtime: BubblewrapRuntime) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    task = world(
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{marker}'])\ntime.sleep(600)"
    )
    process = runtime.launch(task.platform.spec)
    failures: list[EnclaveFailed] = []

    def run() -> None:
        try:
            task.run(runtime, process)
        except EnclaveFailed as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert until(lambda: bool(processes(marker)))
    process.kill()
    thread.join(20)
    assert not thread.is_alive()
    assert failures
    assert until(lambda: not processes(marker))


def test_nothing_outlives_a_worker_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime\n"
        "from cloister.worker.runtimes.runtime import EnclaveSpec, Platform\n"
        "process = BubblewrapRuntime().launch(EnclaveSpec(Platform('simulated')))\n"
        "process.channel.recv(1000)\nprint('up', flush=True)\ntime.sleep(600)\n"
    )
    path = os.pathsep.join([str(measurement.package_root().parent), *sys.path])
    worker = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"up\n"
    children = [pid for pid in tree_of(worker.pid) if pid != worker.pid]
    assert len(children) >= 2
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_a_thread_that_ends_does_not_take_its_enclave_along(
    platform: TestPlatform, world: Make, runtime: BubblewrapRuntime
) -> None:
    started: list[EnclaveProcess] = []
    thread = threading.Thread(target=lambda: started.append(runtime.launch(platform.spec)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert started[0].wait(0) is None
    assert world(HELLO).run(runtime, started[0]).cause is None


def test_several_at_once(platform: TestPlatform, tmp_path: Path, runtime: BubblewrapRuntime) -> None:
    from tests.enclave.world import build_world

    tasks = [build_world(platform, tmp_path / f"app{number}", HELLO + f"\nprint({number})") for number in range(4)]
    threads = [threading.Thread(target=task.run, args=(runtime,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [task.files()["stdout.txt"] for task in tasks] == [f"{number}\n".encode() for number in range(4)]


def test_missing_bubblewrap_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="bwrap is not installed") as missing:
        BubblewrapRuntime()
    assert missing.value.hint == "apt-get install bubblewrap"


def test_stage_folders_are_gone(
    platform: TestPlatform, runtime: BubblewrapRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder of this test's own: others start enclaves at the same time. Their user must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="cloister-test-"))
    folder.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    process = runtime.launch(platform.spec)
    ready(process)
    process.kill()
    assert until(lambda: not list(folder.iterdir()))
    folder.rmdir()


def test_what_is_in_an_enclave_is_what_is_measured() -> None:
    assert (*measurement.FILES, *measurement.ROOMS) == AGENT_PARTS


def test_measurement_changes_with_any_file(tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "cloister"
    shutil.copytree(measurement.package_root(), copy, ignore=shutil.ignore_patterns("__pycache__", "sdk", "services"))
    assert measurement.measure_agent(copy) == measurement.measure_agent()
    (copy / "worker" / "relay.py").write_text("host code is not measured")
    assert measurement.measure_agent(copy) == measurement.measure_agent()
    agent = copy / "enclave" / "agent.py"
    agent.write_text(agent.read_text() + "\n")
    changed = measurement.measure_agent(copy)
    assert changed != measurement.measure_agent()
    agent.rename(copy / "enclave" / "agent2.py")
    assert measurement.measure_agent(copy) != changed


def test_root_that_may_not_change_its_user(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's root: the sandbox stands all the same, only without /proc inside."""
    if os.geteuid() != 0:
        pytest.skip("only root has this case")
    monkeypatch.setattr(BubblewrapRuntime, "_find_setpriv", lambda self: None)
    runtime = BubblewrapRuntime()
    try:
        task = world(HELLO + "open('/iexec_out/proc.txt', 'w').write(str(os.path.isdir('/proc/1')))")
        outcome = task.run(runtime)
        assert outcome.cause is None, outcome.logs
        assert task.files()["proc.txt"] == b"False"
        bomb = world("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass")
        assert bomb.run(runtime).cause == "APP_PROCESSES_EXCEEDED"
    finally:
        runtime.close()


def test_host_without_user_namespaces_is_told_what_to_allow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigurationError, match="uid map: Permission denied") as refused:
        BubblewrapRuntime()
    assert "apparmor_restrict_unprivileged_userns" in str(refused.value.hint)
