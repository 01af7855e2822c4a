"""Memory of keys: locked, hidden, cleared; seen from the kernel's side, in processes of their own."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.enclave.memory import LockedBuffer
from cloister.enclave.session import EnclaveKeys
from cloister.errors import InputError, LocalError
from cloister.protocol.signatures import CURVE_ORDER, PrivateKey, recover_address
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePrivateKey

DIGEST = bytes(range(32))


def start(code: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def succeed(code: str, *, cwd: Path) -> str:
    with start(code, cwd=cwd) as process:
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    return said


MAPPED = """
from cloister.enclave.session import EnclaveKeys

def flags(address):
    # The block of /proc/self/smaps whose range holds the address.
    inside = False
    for line in open("/proc/self/smaps"):
        word = line.split()[0]
        if not word.endswith(":"):
            low, high = (int(part, 16) for part in word.split("-"))
            inside = low <= address < high
        elif inside and word == "VmFlags:":
            return set(line.split()[1:])
        elif inside and word == "Locked:":
            print("locked", line.split()[1])
"""


def test_the_keys_pages_are_locked_and_in_no_dump_and_no_child(tmp_path: Path) -> None:
    said = succeed(MAPPED + "keys = EnclaveKeys(); print(*flags(keys._memory._address))", cwd=tmp_path)
    assert "locked 4" in said
    assert {"lo", "dd", "wf"} <= set(said.splitlines()[-1].split())


FORKED = """
import os
from cloister.enclave.memory import LockedBuffer
buffer = LockedBuffer(64)
buffer.fill_random()
kept = bytes(buffer.view)
assert any(kept)
pid = os.fork()
if pid == 0:
    os._exit(0 if bytes(buffer.view) == bytes(64) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child saw the keys"
assert bytes(buffer.view) == kept
"""


def test_a_forked_child_finds_zeros(tmp_path: Path) -> None:
    succeed(FORKED, cwd=tmp_path)


SEARCHED = """
import gc, sys
from cloister.enclave.session import EnclaveKeys
from cloister.sealing import envelope

memory = open("/proc/self/mem", "rb", buffering=0)

def count(halves):
    # How often a secret lies anywhere in this process. It is looked for in two halves, kept apart and masked, so that the
    # search does not find itself.
    first = bytes(byte ^ 0x5A for byte in halves[0])
    found = 0
    for line in open("/proc/self/maps"):
        span, rights = line.split()[:2]
        if "w" not in rights or "[v" in line:
            continue
        low, high = (int(part, 16) for part in span.split("-"))
        memory.seek(low)
        piece = memory.read(high - low)
        place = piece.find(first)
        while place >= 0:
            rest = piece[place + 16 : place + 32]
            found += all(byte ^ 0x5A == other for byte, other in zip(rest, halves[1])) and len(rest) == 16
            place = piece.find(first, place + 1)
        del piece
    return found

def masked(view):
    halves = bytearray(), bytearray()
    for position in range(32):
        halves[position // 16].append(view[position] ^ 0x5A)
    return halves

keys = EnclaveKeys()
secrets = [masked(keys._memory.view[:32]), masked(keys._memory.view[32:])]
for _ in range(20):
    keys.challenge.sign_message(b"x")
sealed = envelope.seal(keys.hpke.public, b"release", b"info")
assert envelope.open(keys.hpke, sealed, b"info") == b"release"
gc.collect()
print("held", [count(secret) for secret in secrets])
keys.wipe()
gc.collect()
print("wiped", [count(secret) for secret in secrets])
"""


def test_the_keys_lie_in_one_place_and_after_the_wipe_in_none(tmp_path: Path) -> None:
    held, wiped = succeed(SEARCHED, cwd=tmp_path).splitlines()
    assert held == "held [1, 1]"
    assert wiped == "wiped [0, 0]"


ABORTED = """
import os, resource, sys
from cloister.enclave.hardening import harden
from cloister.enclave.session import EnclaveKeys
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
if sys.argv[1] == "hardened":
    harden()
keys = EnclaveKeys()
keys.challenge.sign_message(b"x")
os.abort()
"""


def test_an_aborted_agent_leaves_no_core(tmp_path: Path) -> None:
    dumped = {}
    for mode in ("plain", "hardened"):
        folder = tmp_path / mode
        folder.mkdir()
        with start(ABORTED, mode, cwd=folder) as process:
            _, status = os.waitpid(process.pid, 0)
            process.returncode = -os.WTERMSIG(status)  # waited for here, where the core flag is to be had
        assert os.WTERMSIG(status) == signal.SIGABRT
        dumped[mode] = os.WCOREDUMP(status)
        if mode == "hardened":
            assert list(folder.iterdir()) == []
    assert not dumped["hardened"]
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == resource.RLIM_INFINITY:
        assert dumped["plain"], "nothing dumps here: the test above it says nothing"


LOCKED = """
import resource
from cloister.enclave.memory import lock_process
before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
print(before[1] == resource.RLIM_INFINITY, lock_process())
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")))
big = bytearray(32 << 20)  # goes on to be had, whichever it was
"""


def test_the_whole_process_is_locked_just_where_no_limit_stands(tmp_path: Path) -> None:
    unlimited, locked, kib = succeed(LOCKED, cwd=tmp_path).split()
    assert locked == unlimited
    assert (int(kib) > 1000) == (locked == "True")


REFUSED = """
import os, resource
from cloister.enclave.session import EnclaveKeys
from cloister.errors import ConfigurationError
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)  # root may lock without limit
try:
    EnclaveKeys()
except ConfigurationError as error:
    print(error.message)
"""


def test_keys_do_not_go_where_nothing_can_be_locked(tmp_path: Path) -> None:
    said = succeed(REFUSED, cwd=tmp_path)
    assert said.startswith("the kernel does not lock 4096 bytes for keys")


def test_a_buffer_shows_nothing_and_clears() -> None:
    with LockedBuffer(40) as buffer:
        assert len(buffer.view) == 40
        buffer.fill_random()
        content = bytes(buffer.view)
        assert content != bytes(40)
        assert content.hex() not in repr(buffer)
        with pytest.raises(TypeError):
            pickle.dumps(buffer)
        view = buffer.view
    assert bytes(view) == bytes(40)
    buffer.clear()
    for size in (0, -1):
        with pytest.raises(LocalError):
            LockedBuffer(size)
    assert len(LockedBuffer(10_000).view) == 10_000


def test_a_key_in_a_buffer_is_the_key_of_its_bytes() -> None:
    raw = bytes(range(1, 33))
    memory = bytearray(raw)
    here, elsewhere = PrivateKey.at(memoryview(memory)), PrivateKey(raw)
    assert here.address == elsewhere.address
    assert here.sign_digest(DIGEST) == elsewhere.sign_digest(DIGEST)
    assert recover_address(DIGEST, here.sign_digest(DIGEST)) == here.address
    here.wipe()
    here.wipe()
    assert memory == bytes(32)
    for use in (lambda: here.sign_digest(DIGEST), here.unprotected_raw):
        with pytest.raises(InputError, match="wiped"):
            use()
    assert elsewhere.unprotected_raw() == raw


@pytest.mark.parametrize("raw", [bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32, bytes(31), b"\1" * 33, b""])
def test_what_is_no_key_is_none_in_a_buffer_either(raw: bytes) -> None:
    with pytest.raises(InputError):
        PrivateKey.at(memoryview(bytearray(raw)))
    with pytest.raises(InputError):
        PrivateKey(raw)


def test_a_signature_over_cleared_memory_is_refused() -> None:
    memory = bytearray(range(1, 33))
    key = PrivateKey.at(memoryview(memory))
    memory[:] = bytes(32)
    with pytest.raises(InputError, match="wiped"):
        key.sign_digest(DIGEST)


def test_an_envelopes_key_in_a_buffer_is_the_key_of_its_seed() -> None:
    memory = bytearray(range(32))
    here, elsewhere = HpkePrivateKey.at(memoryview(memory)), HpkePrivateKey(bytes(range(32)))
    assert here == elsewhere
    assert here.public == elsewhere.public
    sealed = envelope.seal(here.public, b"release", b"info")
    assert envelope.open(here, sealed, b"info") == b"release"
    here.wipe()
    assert memory == bytes(32)
    with pytest.raises(InputError):
        HpkePrivateKey.at(memoryview(bytearray(31)))


def test_an_enclaves_keys_are_fresh_and_can_be_wiped() -> None:
    first, second = EnclaveKeys(), EnclaveKeys()
    assert first.challenge.address != second.challenge.address
    assert first.hpke.public != second.hpke.public
    first.hpke.wipe()
    first.challenge.sign_digest(DIGEST)  # each is wiped when it is done
    first.wipe()
    first.wipe()
    with pytest.raises(InputError):
        first.challenge.sign_digest(DIGEST)
    second.challenge.sign_digest(DIGEST)
