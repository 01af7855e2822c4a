"""The network's TPM root: made once, whatever kills it, and certifying only what is proven."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.enclave.attesters.machine import booted, require_swtpm

from cloister.attestation.tpm.certificates import verify_identity
from cloister.enclave.attesters.tpm import AK_CERTIFICATE_INDEX, EK_CERTIFICATE_INDEX
from cloister.enclave.attesters.tpm_commands import read_nv
from cloister.errors import ConfigurationError, RemoteError, UnavailableError, VerificationError
from cloister.network import tpmenrolment
from cloister.network.tpmenrolment import SocketTransceiver, enrol
from cloister.network.tpmroot import load_tpm_authority, load_tpm_root
from cloister.worker.vm.swtpm import Swtpm


@pytest.fixture(autouse=True)
def _swtpm() -> None:
    require_swtpm()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_root_and_tpm_are_made_once_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "tpm"
    first = load_tpm_root(folder, "home")
    before = contents(folder)
    assert load_tpm_root(folder, "home") == first
    assert contents(folder) == before
    assert not list(folder.glob(".machine-*"))
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_certificates_say_which_keys_share_a_tpm(tmp_path: Path) -> None:
    root = load_tpm_root(tmp_path / "tpm", "home")
    with booted(root, tmp_path / "machine") as machine:
        ek_der, ak_der = (read_nv(machine.tpm, index) for index in (EK_CERTIFICATE_INDEX, AK_CERTIFICATE_INDEX))
        identity = verify_identity(ak_der, ek_der, machine.collateral, int(time.time()))
    ek = x509.load_der_x509_certificate(ek_der)
    spki = ek.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert identity.platform == hashlib.sha256(spki).digest()
    (make,) = ek.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "id:00001014" in make.value.rfc4514_string() or "id:49424D00" in make.value.rfc4514_string()


def test_another_networks_root_does_not_vouch(tmp_path: Path) -> None:
    ours, theirs = (load_tpm_root(tmp_path / name, "home") for name in ("ours", "theirs"))
    assert ours.root != theirs.root
    with booted(ours, tmp_path / "machine") as machine:
        certificates = [read_nv(machine.tpm, index) for index in (AK_CERTIFICATE_INDEX, EK_CERTIFICATE_INDEX)]
    with booted(theirs, tmp_path / "other") as other, pytest.raises(VerificationError) as refused:
        verify_identity(*certificates, other.collateral, int(time.time()))
    assert refused.value.code == "untrusted-root"


def test_enrolment_may_be_run_again_on_the_same_tpm(tmp_path: Path) -> None:
    load_tpm_root(tmp_path / "tpm", "home")
    authority = load_tpm_authority(tmp_path / "tpm", "home")
    state = tmp_path / "state"
    state.mkdir()
    keys = []
    for _ in range(2):
        with Swtpm.start_in_place(state) as swtpm:
            tpm = SocketTransceiver(swtpm.socket)
            enrol(tpm, authority)
            tpm.close()
        with Swtpm.start_in_place(state) as swtpm:
            tpm = SocketTransceiver(swtpm.socket)
            keys.append(x509.load_der_x509_certificate(read_nv(tpm, AK_CERTIFICATE_INDEX)).public_key())
            tpm.close()
    assert keys[0] == keys[1]


class Recording:
    """An authority that must not be asked."""

    def __init__(self) -> None:
        self.asked = False

    def certify_ek(self, key: object, model: object) -> bytes:
        self.asked = True
        return b"certificate"

    certify_ak = certify_ek


class Splice:
    """Two TPMs that pose as one: the second makes the attestation key, everything else is the first's."""

    def __init__(self, first: SocketTransceiver, second: SocketTransceiver) -> None:
        self._first = first
        self._second = second
        self._primaries = 0

    def exchange(self, command: bytes) -> bytes:
        if int.from_bytes(command[6:10], "big") != 0x131:
            return self._first.exchange(command)
        self._primaries += 1
        ours = self._first.exchange(command)
        return ours if self._primaries == 1 else ours[:14] + self._second.exchange(command)[14:]


def test_keys_of_two_tpms_are_not_certified_as_one(tmp_path: Path) -> None:
    tpms = []
    with Swtpm.start_in_place(_empty(tmp_path / "1")) as first, Swtpm.start_in_place(_empty(tmp_path / "2")) as second:
        tpms = [SocketTransceiver(swtpm.socket) for swtpm in (first, second)]
        authority = Recording()
        # The TPM itself refuses: the credential is under another name than its own key has.
        with pytest.raises(RemoteError) as refused:
            enrol(Splice(*tpms), authority)
        assert refused.value.code == "tpm-refused"
        assert not authority.asked
        for tpm in tpms:
            tpm.close()


def test_a_key_of_another_kind_is_not_certified(tmp_path: Path) -> None:
    class Loose:
        """Asks for a key that may sign anything: without ``restricted``."""

        def __init__(self, tpm: SocketTransceiver) -> None:
            self._tpm = tpm

        def exchange(self, command: bytes) -> bytes:
            return self._tpm.exchange(command.replace(bytes.fromhex("00050472"), bytes.fromhex("00040472")))

    with Swtpm.start_in_place(_empty(tmp_path / "state")) as swtpm:
        tpm = SocketTransceiver(swtpm.socket)
        authority = Recording()
        with pytest.raises(VerificationError, match="another kind") as refused:
            enrol(Loose(tpm), authority)
        assert refused.value.code == "tpm-key"
        assert not authority.asked
        tpm.close()


def test_the_credential_opens_in_a_real_tpm_for_any_size_of_secret(tmp_path: Path) -> None:
    with Swtpm.start_in_place(_empty(tmp_path / "state")) as swtpm:
        tpm = SocketTransceiver(swtpm.socket)
        with (
            tpmenrolment._primary(tpm, tpmenrolment._EK_HEAD) as (ek, ek_area),
            tpmenrolment._primary(tpm, tpmenrolment._AK_HEAD) as (ak, ak_area),
        ):
            key = tpmenrolment._read_key(ek_area, tpmenrolment._EK_HEAD)
            for size in (1, 16, 31, 32):
                secret = os.urandom(size)
                sealed = tpmenrolment.make_credential(key, tpmenrolment._name(ak_area), secret, os.urandom)
                assert tpmenrolment._activate(tpm, ak, ek, *sealed, os.urandom) == secret
            other = ec.generate_private_key(ec.SECP256R1()).public_key()
            sealed = tpmenrolment.make_credential(other, tpmenrolment._name(ak_area), bytes(32), os.urandom)
            with pytest.raises(RemoteError):
                tpmenrolment._activate(tpm, ak, ek, *sealed, os.urandom)
        tpm.close()


KILLED = """
import sys
from pathlib import Path
from cloister.network import tpmenrolment, tpmroot
print("go", flush=True)
tpmroot.load_tpm_root(Path(sys.argv[1]), "home")
"""


def test_killed_anywhere_and_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "tpm"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment["TMPDIR"] = str(tmp_path)
    roots = set()
    for delay in (0.0, 0.01, 0.02, 0.03, 0.045):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        if (folder / "root.der").is_file():
            roots.add((folder / "root.der").read_bytes())
        assert not [state for state in folder.glob("machine-*") if not (state / "tpm2-00.permall").is_file()]
    _wait_for_none_of(str(tmp_path))
    root = load_tpm_root(folder, "home")
    assert roots <= {root.root}, "a root that somebody may have read is never replaced"
    assert not list(folder.glob(".machine-*"))
    with booted(root, tmp_path / "machine") as machine:
        certificates = [read_nv(machine.tpm, index) for index in (AK_CERTIFICATE_INDEX, EK_CERTIFICATE_INDEX)]
        verify_identity(*certificates, machine.collateral, int(time.time()))


def test_a_root_without_its_key_enrols_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tpm"
    load_tpm_root(folder, "home")
    (folder / "root.key").unlink()
    assert load_tpm_root(folder, "home").state.is_dir(), "what was enrolled goes on"
    with pytest.raises(ConfigurationError, match="not the key"):
        load_tpm_authority(folder, "home")


def test_swtpm_starts_only_on_a_state_and_ends_with_its_owner(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no TPM"):
        Swtpm.start(_empty(tmp_path / "empty"))
    root = load_tpm_root(tmp_path / "tpm", "home")
    before = contents(root.state)
    swtpm = Swtpm.start(root.state)
    folder = swtpm.socket.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    limits = Path(f"/proc/{swtpm.pid}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    swtpm.stop()
    swtpm.stop()
    assert not folder.exists()
    assert not Path(f"/proc/{swtpm.pid}").exists()
    assert contents(root.state) == before
    damaged = _empty(tmp_path / "damaged")
    (damaged / "tpm2-00.permall").write_bytes(b"nonsense")
    with pytest.raises(UnavailableError, match="swtpm"):
        Swtpm.start_in_place(damaged)


def test_a_root_gives_swtpm_a_user_without_rights(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a process another user")
    user = 1_900_000_042
    with Swtpm.start(load_tpm_root(tmp_path / "tpm", "home").state, user=user) as swtpm:
        status = Path(f"/proc/{swtpm.pid}/status").read_text()
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(found["Uid"].split()) == set(found["Gid"].split()) == {str(user)}
        assert found["Groups"].strip() == ""
        assert int(found["CapEff"], 16) == 0
        assert found["NoNewPrivs"] == "1"
        assert {path.stat().st_uid for path in (swtpm.socket.parent, *swtpm.socket.parent.iterdir())} == {user}


OWNER = """
import sys, time
from pathlib import Path
from cloister.worker.vm.swtpm import Swtpm
print(Swtpm.start(Path(sys.argv[1])).pid, flush=True)
time.sleep(60)
"""


def test_swtpm_dies_with_a_killed_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = load_tpm_root(tmp_path / "tpm", "home")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment["TMPDIR"] = str(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(root.state)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        process.kill()
    _wait_for_none_of(str(tmp_path))
    (left,) = tmp_path.glob("cloister-tpm-*")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Swtpm.start(root.state).stop()
    assert not left.exists(), "what the killed one left is removed by the next"


def _wait_for_none_of(word: str) -> None:
    """Wait until no process has ``word`` in its arguments."""
    deadline = time.monotonic() + 10
    while any(word in arguments for arguments in _arguments()):
        assert time.monotonic() < deadline, "swtpm outlived its owner"
        time.sleep(0.01)


def _arguments() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_text(errors="replace")


def _empty(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
