"""iApps that misbehave: each is contained, ends, and its result is ``error.txt`` with the named cause."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable

import pytest
from tests.enclave.world import HELLO, World

from cloister.attestation.receipt import parse_receipt
from cloister.protocol.codec import Address, keccak256
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]

CASES = {
    "exit code": ("raise SystemExit(3)", "APP_COMPUTE_FAILED", {}),
    "exception": ("1/0", "APP_COMPUTE_FAILED", {}),
    "killed by itself": ("import os; os.kill(os.getpid(), 9)", "APP_COMPUTE_FAILED", {}),
    "hang": ("import time; time.sleep(600)", "APP_COMPUTE_TIMEOUT", {"seconds": 1}),
    "hang that ignores SIGTERM": (
        "import signal, time\nfor s in {*range(1, 32)} - {9, 19}:\n    signal.signal(s, signal.SIG_IGN)\ntime.sleep(600)",
        "APP_COMPUTE_TIMEOUT",
        {"seconds": 1},
    ),
    "closed pipes and a hang": (
        "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(600)",
        "APP_COMPUTE_TIMEOUT",
        {"seconds": 1},
    ),
    "fork bomb": (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        "APP_PROCESSES_EXCEEDED",
        {},
    ),
    "memory hog": (
        "x = []\nwhile True:\n    x.append(b'x' * 1_000_000 + bytes([len(x) % 256]))",
        "APP_MEMORY_EXCEEDED",
        {},
    ),
    "one huge allocation": ("x = bytearray(1 << 40)", "APP_MEMORY_EXCEEDED", {}),
    "memory spread over children": (
        "import os, time\nfor _ in range(8):\n    if not os.fork():\n        x = b'x' * (60 << 20)\n        break\ntime.sleep(60)",
        "APP_MEMORY_EXCEEDED",
        {},
    ),
    "10 GB writer": (
        "f = open('/iexec_out/big', 'wb')\nfor _ in range(10_000):\n    f.write(bytes(1_000_000))",
        "APP_DISK_EXCEEDED",
        {},
    ),
    "10 GB in /tmp": (
        "f = open('/tmp/big', 'wb')\nfor _ in range(10_000):\n    f.write(bytes(1_000_000))",
        "APP_DISK_EXCEEDED",
        {},
    ),
    "60,000 files": (
        "for n in range(60_000):\n    open(f'/iexec_out/{n}', 'w').close()",
        "APP_OUTPUT_FILES_EXCEEDED",
        {},
    ),
    "1,001 files": (
        HELLO + "for n in range(1000):\n    open(f'/iexec_out/{n}', 'w').close()",
        "APP_OUTPUT_FILES_EXCEEDED",
        {},
    ),
    "symlink out": (HELLO + "os.symlink('/etc/passwd', '/iexec_out/link')", "APP_OUTPUT_NOT_A_FILE", {}),
    "symlink as computed.json": (
        "import os\nos.symlink('/proc/self/environ', '/iexec_out/computed.json')",
        "APP_OUTPUT_NOT_A_FILE",
        {},
    ),
    "symlinked folder": (HELLO + "os.symlink('/usr', '/iexec_out/usr')", "APP_OUTPUT_NOT_A_FILE", {}),
    "hard link": (HELLO + "os.link('/iexec_out/result.txt', '/iexec_out/again')", "APP_OUTPUT_NOT_A_FILE", {}),
    "pipe": (HELLO + "os.mkfifo('/iexec_out/pipe')", "APP_OUTPUT_NOT_A_FILE", {}),
    "name with a backslash": (HELLO + r"open('/iexec_out/a\\b', 'w').close()", "APP_OUTPUT_NAME_REFUSED", {}),
    "name with a line break": (HELLO + r"open('/iexec_out/a\nb', 'w').close()", "APP_OUTPUT_NAME_REFUSED", {}),
    "name that is not UTF-8": (HELLO + r"open(b'/iexec_out/\xff', 'w').close()", "APP_OUTPUT_NAME_REFUSED", {}),
    "the enclave's own name": (HELLO + "open('/iexec_out/receipt.cose', 'w').close()", "APP_OUTPUT_NAME_REFUSED", {}),
    "long name": (
        HELLO + "open('/iexec_out/' + 'x' * 32, 'w').close()",
        "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME",
        {},
    ),
    "deep folders": (HELLO + "os.makedirs('/iexec_out/' + '/'.join('d' * 20))", "APP_OUTPUT_NAME_REFUSED", {}),
    "no computed.json": ("open('/iexec_out/a', 'w').close()", "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND", {}),
    "computed.json is no json": (
        "open('/iexec_out/computed.json', 'w').write('{')",
        "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND",
        {},
    ),
    "deep computed.json": (
        "open('/iexec_out/computed.json', 'w').write('[' * 100_000)",
        "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND",
        {},
    ),
    "path outside": (
        HELLO
        + "json.dump({'deterministic-output-path': '/iexec_out/../etc/passwd'}, open('/iexec_out/computed.json', 'w'))",
        "POST_COMPUTE_RESULT_FILE_NOT_FOUND",
        {},
    ),
    "path to nothing": (
        HELLO + "json.dump({'deterministic-output-path': '/iexec_out/none'}, open('/iexec_out/computed.json', 'w'))",
        "POST_COMPUTE_RESULT_FILE_NOT_FOUND",
        {},
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_contained(world: Make, runtime: BubblewrapRuntime, name: str) -> None:
    code, cause, resources = CASES[name]
    task = world(code, resources=resources)
    started = time.monotonic()
    outcome = task.run(runtime)
    assert outcome.cause == cause
    # Contained means ended, too: far from the deadline of the task.
    assert time.monotonic() - started < 30
    files = task.files()
    expected = f"[IEXEC] Errors occurred while computing the task [error:COMPUTE_FAILED, causes:[{cause}]]\n"
    assert files["error.txt"].decode() == expected
    assert outcome.result_digest.raw == hashlib.sha256(files["error.txt"]).digest()
    assert json.loads(files["computed.json"])["deterministic-output-path"] == "/iexec_out/error.txt"
    assert parse_receipt(files["receipt.cose"]).claims.cause == cause


def test_result_over_the_cap(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO + "open('/iexec_out/big', 'wb').write(bytes(2_000_000))", max_result_bytes=1_000_000)
    assert task.run(runtime).cause == "APP_OUTPUT_SIZE_EXCEEDED"


def test_failed_callback_task_completes_with_empty_data(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world("1/0", callback=Address("0x" + "99" * 20))
    outcome = task.run(runtime)
    assert outcome.results_callback == b""
    assert outcome.result_digest.raw == keccak256(b"")


def test_secret_on_stdout_reaches_nobody(world: Make, runtime: BubblewrapRuntime) -> None:
    code = (
        HELLO
        + "print(os.environ['IEXEC_APP_DEVELOPER_SECRET'])\nraise SystemExit(os.environ['IEXEC_APP_DEVELOPER_SECRET'])"
    )
    task = world(code, app_secret="only the developer's")
    outcome = task.run(runtime)
    assert outcome.cause == "APP_COMPUTE_FAILED"
    assert "withheld" in outcome.logs["stderr"]
    assert b"only the developer's" not in task.result + b"".join(task.files().values())


def test_last_of_the_logs_is_kept(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO + "import sys\nfor n in range(400_000):\n    print(n)\nprint('end', file=sys.stderr)")
    outcome = task.run(runtime)
    assert outcome.logs is not None
    assert len(outcome.logs["stdout"]) == 100_000
    assert outcome.logs["stdout"].endswith("399999\n")
    assert outcome.logs["stderr"] == "end\n"


PROBES = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
seen = {}

def attempt(name, action):
    try:
        action()
        seen[name] = "allowed"
    except Exception as error:
        seen[name] = type(error).__name__

def call(name, x86, arm, *arguments):
    if libc.syscall(x86 if X86 else arm, *arguments) >= 0:
        seen[name] = "allowed"
    else:
        seen[name] = os.strerror(ctypes.get_errno())

attempt("tcp", lambda: socket.create_connection(("1.1.1.1", 80), 1))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("ipv6", lambda: socket.socket(socket.AF_INET6))
attempt("dns", lambda: socket.getaddrinfo("example.org", 80))
attempt("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).bind("\\0name"))
attempt("pair bind", lambda: socket.socketpair()[0].bind("\\0name"))
call("ptrace", 101, 117, 0, 0, 0, 0)
call("bpf", 321, 280, 0, 0, 0)
call("io_uring", 425, 425, 8, 0)
call("user namespace", 272, 97, 0x10000000)
call("clone namespace", 56, 220, 0x10000000 | 17, 0, 0, 0, 0)
call("clone3", 435, 435, 0, 0)
call("setns", 308, 268, 0, 0)
call("mount", 165, 40, 0, 0, 0, 0, 0)
call("chroot", 161, 51, b"/")
call("keyctl", 250, 219, 0, 0)
call("perf", 298, 241, 0, 0, 0, 0, 0)
call("userfaultfd", 323, 282, 0)
call("process_vm_readv", 310, 270, 1, 0, 0, 0, 0, 0)
call("module", 175, 105, 0, 0, 0)
call("kexec", 246, 104, 0, 0, 0, 0)
call("open_by_handle", 304, 265, 0, 0, 0)
call("unknown call", 500, 500)
for path in ("/a", "/app/a", "/usr/a", "/etc/a", "/dev/a", "/iexec_in/a", "/iexec_out/../a",
"/proc/sys/kernel/core_pattern"):
    attempt(f"write {path}", lambda: open(path, "w"))
seen["pids"] = sorted(int(n) for n in os.listdir("/proc") if n.isdigit()) if os.path.isdir("/proc") else []
seen["environments"] = []
for pid in seen["pids"]:
    try:
        seen["environments"].append(open(f"/proc/{pid}/cmdline").read())
    except OSError:
        pass
seen["core"] = __import__("resource").getrlimit(4)
seen["capabilities"] = [l for l in open("/proc/self/status") if l.startswith("Cap")] if seen["pids"] else []
seen["site"] = [p for p in __import__("sys").path if "-packages" in p and os.path.isdir(p) and os.listdir(p)]
json.dump(seen, open("/iexec_out/seen.json", "w"))
json.dump({"deterministic-output-path": "/iexec_out/seen.json"}, open("/iexec_out/computed.json", "w"))
"""


def test_doors_are_shut(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(PROBES)
    outcome = task.run(runtime)
    assert outcome.cause is None, outcome.logs
    seen = json.loads(task.files()["seen.json"])
    assert [name for name, end in seen.items() if end == "allowed"] == []
    assert seen["unknown call"] == "Function not implemented"
    # Its own two processes and nobody's else.
    assert len(seen["pids"]) <= 3
    assert not any("cloister.enclave.agent" in line for line in seen["environments"])
    assert seen["core"] == [0, 0]
    assert all(line.split()[1].strip("0") == "" for line in seen["capabilities"] if not line.startswith("CapBnd"))
    assert seen["site"] == []


def test_ordinary_python_works(world: Make, runtime: BubblewrapRuntime) -> None:
    code = (
        "import asyncio, concurrent.futures, multiprocessing, sqlite3, subprocess, tempfile, threading, ctypes, decimal\n"
        "if __name__ == '__main__':\n"
        "    assert list(multiprocessing.get_context('fork').Pool(2).map(abs, [-1, -2])) == [1, 2]\n"
        "    assert list(multiprocessing.get_context('spawn').Pool(2).map(abs, [-1, -2])) == [1, 2]\n"
        "    assert list(concurrent.futures.ThreadPoolExecutor(2).map(abs, [-1])) == [1]\n"
        "    assert subprocess.check_output(['/bin/sh', '-c', 'echo hi']) == b'hi\\n'\n"
        "    asyncio.run(asyncio.sleep(0))\n"
        "    tempfile.TemporaryFile().write(b'x')\n"
        "    sqlite3.connect('/tmp/a.db').execute('create table t (a)')\n"
    )
    task = world(code + "".join(f"    {line}\n" if line else "" for line in HELLO.splitlines()))
    outcome = task.run(runtime)
    assert outcome.cause is None, outcome.logs
