"""Case 53: key material in logs, process arguments, environments of children, core dumps and files: absent. On a whole
live network, while a task runs that uses a data key, an app secret and a requester secret.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.anvil import find_anvil
from tests.support.network import LiveNetwork, live_network, write_app

from cloister.generator.bundle import build_bundle
from cloister.network.accounts import load_accounts
from cloister.sealing.keys import ContentKey

pytestmark = [
    pytest.mark.xdist_group("network-key-material"),
    pytest.mark.skipif(find_anvil() is None, reason="anvil is not installed"),
]
DATA_KEY = hashlib.sha256(b"the key of case 53").digest()
APP_SECRET, REQUESTER_SECRET = "app-secret-5d1f9c0e77", "requester-secret-a90b3c4d21"
KEPT_ON_PURPOSE = {"accounts.json", "keys", "testroot", "sms.kek", "resultproxy.key"}
"""Files whose very purpose is to hold a key, mode 0600: demo accounts, the test root, the SMS's key-encryption key."""


def spellings(secret: bytes) -> list[bytes]:
    """A secret as it might be written down."""
    found = [secret, secret.hex().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)]
    return [text for text in found if len(text) >= 16]


@dataclass
class Watch:
    """Looks at arguments, environments and core limits of every process that is younger than the test."""

    needles: list[bytes]
    found: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    dumpable: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._old = {entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and entry.name not in self._old:
                    with suppress(OSError):
                        self._look(entry)

    def _look(self, process: Path) -> None:
        arguments = process.joinpath("cmdline").read_bytes()
        name = arguments.replace(b"\0", b" ")[:400].decode(errors="replace")
        self.seen.add(name)
        texts = {"arguments": arguments}
        if b"cloister.enclave.agent" in arguments and b"bwrap" not in arguments.split(b"\0")[0]:
            limits = process.joinpath("limits").read_text()
            core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
            if core.split()[4] != "0":
                self.dumpable.add(name)
        # An iApp's own secrets are in its own environment: that is how it is given them (runtime contract).
        if b"main.py" not in arguments:
            with suppress(PermissionError):
                texts["environment"] = process.joinpath("environ").read_bytes()
        for where, text in texts.items():
            self.found |= {f"{where} of {name}" for needle in self.needles if needle in text}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveNetwork]:
    with live_network(tmp_path / "home") as network:
        yield network


def test_case_53_key_material_is_nowhere(live: LiveNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cloister.sdk.protection.generate_content_key", lambda _, content_format: ContentKey(content_format, DATA_KEY)
    )
    bundle = build_bundle(write_app(tmp_path / "app")).path
    company, owner, requester = live.newcomer(), live.newcomer(), live.newcomer(stake="1 RLC")
    app = company.apps.deploy(bundle, name="probe")
    accounts = load_accounts(live.home / "networks" / live.name / "accounts.json")
    operators = [accounts.key(role).unprotected_raw() for role in ("scheduler", "worker", "sms", "deployer")]
    people = [person.connection.signer.unprotected_raw() for person in (company, owner, requester)]
    secrets = [DATA_KEY, APP_SECRET.encode(), REQUESTER_SECRET.encode(), *operators, *people]
    needles = [text for secret in secrets for text in spellings(secret)]
    with Watch(needles) as watch:
        company.apps.push_secret(app.address, APP_SECRET)
        company.apps.publish(app.address)
        data = owner.protect_data({"a": 1}, name="data")
        owner.grant_access(data, app=app, user=requester.connection.address)
        run = requester.process_protected_data(
            data, app=app, workerpool_max_price="0.02 RLC", secrets={1: REQUESTER_SECRET}, timeout=60
        )
        assert run.result.read("answer.json")
        time.sleep(0.3)
    assert watch.found == set()
    assert watch.dumpable == set()
    assert any("agent" in name for name in watch.seen), "no enclave was seen: the look proves nothing"
    written = [path for path in live.home.rglob("*") if path.is_file() and not KEPT_ON_PURPOSE & set(path.parts)]
    assert any(path.suffix == ".log" for path in written)
    assert any(path.name.startswith("sms.sqlite") for path in written)
    guilty = {str(path.relative_to(live.home)) for path in written for needle in needles if needle in path.read_bytes()}
    assert guilty == set()
    assert not list(Path.cwd().glob("core*"))
    assert oct((live.home / "networks" / live.name / "accounts.json").stat().st_mode & 0o777) == "0o600"
