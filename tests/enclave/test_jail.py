"""The launcher under gVisor: it understands every option that the sandbox is built with, and none that it does not know."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloister.enclave import jail, launching
from cloister.enclave.filesystem import FileCount, Mount
from cloister.enclave.launching import Launcher, find_launcher, is_gvisor
from cloister.enclave.sandbox import Limits, SandboxSpec, _arguments, _Handles
from cloister.worker.runtimes import oci_engine

LEAST = ["--unshare-all", "--uid", "1000", "--gid", "1000"]


def plan(*options: str) -> jail.Plan:
    return jail.parse_plan([*LEAST, *options, "--", "/bin/true"])


@pytest.mark.parametrize("online", [False, True])
def test_it_understands_the_sandboxs_own_options(tmp_path: Path, online: bool) -> None:
    spec = SandboxSpec(
        command=("/bin/true",),
        environment={},
        mounts=(Mount(tmp_path, "/iexec_in"),),
        working_directory="/app",
        limits=Limits(memory_bytes=1 << 28, disk_bytes=1 << 24, seconds=1, processes=4),
        online=online,
    )
    with ExitStack() as stack:
        handles = _Handles(stack)
        understood = jail.parse_plan([*_arguments(spec, handles), "--", *spec.command])
        assert (understood.user, understood.group) == (1000, 1000)
        assert bool(understood.namespaces & 0x40000000) is not online
        assert understood.namespaces & 0x20000000
        assert understood.filter is not None
        assert understood.command == ["/bin/true"]
        writable = {step.target: step.size for step in understood.steps if step.what == "--tmpfs"}
        assert writable["/iexec_out"] == writable["/tmp"] == 1 << 24
        assert {step.what for step in understood.steps} >= {"--ro-bind", "--proc", "--dev", "--remount-ro"}
        # A size or mode is that of the one thing that follows it.
        assert next(step for step in understood.steps if step.what == "--proc").size is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([*LEAST, "--bind", "/", "/", "--", "/bin/true"], "unknown option --bind"),
        ([*LEAST, "--dev-bind", "/", "/", "--", "/bin/true"], "unknown option --dev-bind"),
        ([*LEAST, "--chdir"], "--chdir lacks a value"),
        ([*LEAST, "--ro-bind", "/usr"], "--ro-bind lacks a value"),
        (LEAST, "a command"),
        (["--unshare-all", "--", "/bin/true"], "a user"),
        (["--uid", "1000", "--gid", "1000", "--", "/bin/true"], "a pid namespace"),
    ],
)
def test_what_it_does_not_know_or_would_be_too_little_is_refused(arguments: list[str], reason: str) -> None:
    with pytest.raises(jail.JailError, match=reason):
        jail.parse_plan(arguments)


def test_an_images_root_is_nobody_to_the_kernel() -> None:
    understood = jail.parse_plan(["--unshare-all", "--uid", "0", "--gid", "0", "--", "/bin/true"])
    assert understood.owner == (jail.MAPPED, jail.MAPPED)
    assert plan().owner == (1000, 1000)
    assert jail.kernel_ids(33, 0) == (33, jail.MAPPED)


def test_links_of_the_tree_lead_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "absolute").symlink_to("/usr")
    (root / "up").symlink_to("../../../../../etc")
    (root / "out").symlink_to(str(tmp_path))
    (root / "loop").symlink_to("loop")
    place = {
        target: jail.find_place(str(root), target) for target in ("/bin/x", "/absolute/y", "/up/passwd", "/out", "/")
    }
    assert place["/bin/x"] == f"{root}/usr/bin/x"
    assert place["/absolute/y"] == f"{root}/usr/y"
    assert place["/up/passwd"] == f"{root}/etc/passwd"
    assert place["/out"] == f"{root}{tmp_path}"
    assert place["/"] == str(root)
    assert jail.find_place(str(root), "/../../a") == f"{root}/a"
    for target, reason in (("/loop", "do not end"), ("relative", "not absolute")):
        with pytest.raises(jail.JailError, match=reason):
            jail.find_place(str(root), target)


def test_what_the_agent_shows_can_be_read_and_not_written_by_others(tmp_path: Path) -> None:
    secret = tmp_path / "shown"
    (secret / "inner").mkdir(parents=True, mode=0o700)
    for name, mode in (("plain", 0o600), ("program", 0o700), ("open", 0o666)):
        (secret / "inner" / name).write_text("")
        (secret / "inner" / name).chmod(mode)
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    (secret / "link").symlink_to(outside)
    jail._show_only(str(secret))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (secret / "inner").iterdir()}
    assert modes == {"plain": 0o644, "program": 0o755, "open": 0o644}
    assert (secret / "inner").stat().st_mode & 0o777 == 0o755
    assert outside.stat().st_mode & 0o777 == 0o600


def test_it_says_why_and_starts_nothing(tmp_path: Path) -> None:
    """As a program, apart from this package: an environment that moves Python does not move it."""
    (tmp_path / "ctypes.py").write_text("raise SystemExit('moved')")
    environment, giving = os.pipe()
    os.write(giving, b"{}")
    os.close(giving)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", jail.__file__, str(environment), *LEAST, "--overlay", "/"],
        pass_fds=(environment,),
        env={"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "ctypes.py")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(environment)
    assert (done.returncode, done.stderr) == (1, "jail: unknown option --overlay\n")


def test_bubblewrap_is_taken_wherever_the_kernel_is_linux() -> None:
    assert launching.GVISOR_VERSION == oci_engine.GVISOR_VERSION
    assert not is_gvisor()
    launcher = find_launcher()
    assert launcher.tree is None
    assert launcher.unlimited == frozenset()
    assert launcher.root(7) == "/proc/7/root"
    assert Launcher(("x",), tree="/jail").root(7) == "/jail"


def test_files_are_counted_where_the_kernel_does_not(tmp_path: Path) -> None:
    for folder in ("", "a", "a/b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(5):
            (tmp_path / folder / str(number)).touch()
    (tmp_path / "link").symlink_to(tmp_path)
    handle = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert FileCount(at_most=1000)._look(handle, 1000) == 18
        assert FileCount(at_most=7)._look(handle, 7) <= 8
    finally:
        os.close(handle)
