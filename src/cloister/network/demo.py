"""The story the project is for, on real data: a hospital, a company and a researcher.

The hospital protects the breast-cancer table that scikit-learn ships (569 patients). The company's iApp trains and scores a
classifier on it inside the enclave. The researcher pays 0.1 RLC and opens metrics, a picture and the model. Then the
hospital revokes, and the next attempt is refused before any money moves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cloister.attestation.receipt import VerifiedReceipt
from cloister.errors import ConfigurationError, Denied, LocalError
from cloister.generator.bundle import build_bundle
from cloister.protocol.units import Nrlc, parse_nrlc
from cloister.sdk.access import Grant
from cloister.sdk.account import Balances
from cloister.sdk.apps import App
from cloister.sdk.data_protector import DataProtector
from cloister.sdk.home import home_folder
from cloister.sdk.processing import Run
from cloister.sdk.progress import Listener
from cloister.sdk.protection import ProtectedData

DATA_PRICE = "0.05 RLC"
APP_PRICE = "0.03 RLC"
RUN_PRICE = "0.02 RLC"
TOTAL_PRICE = "0.1 RLC"
PURPOSE = "research"
GRANT_DAYS = 30
T = TypeVar("T")
PARTIES = ("hospital", "company", "researcher", "scheduler", "worker")


@dataclass
class Story:
    """What has happened so far."""

    app: App | None = None
    data: ProtectedData | None = None
    grant: Grant | None = None
    run: Run | None = None
    before: Mapping[str, Balances] = field(default_factory=dict)
    after: Mapping[str, Balances] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    receipt: VerifiedReceipt | None = None
    saved: list[Path] = field(default_factory=list)
    refusal: str = ""


class HospitalDemo:
    """The steps, each to be called once and in order. ``network`` is a local network's name."""

    def __init__(self, network: str, folder: Path, listener: Listener) -> None:
        self._network = network
        self._folder = folder
        self._tell = listener
        self.story = Story()

    def _as(self, role: str) -> DataProtector:
        return DataProtector.connect(self._network, wallet=role, on_status=self._tell)

    @property
    def enclave_kind(self) -> str:
        """The kind of evidence that the network's enclaves give."""
        return self._as("company").connection.network.enclave_kind

    def company_publishes(self) -> App:
        """The company builds its iApp with everything it depends on, deploys and offers it."""
        company = self._as("company")
        app = company.apps.deploy(demo_bundle(), name="breast-cancer-classifier")
        company.apps.publish(app.address, price=APP_PRICE)
        self.story.app = app
        return app

    def hospital_protects(self) -> ProtectedData:
        """The hospital encrypts its table; only the SMS, which never sees data, gets the key."""
        self.story.data = self._as("hospital").protect_data(load_patients(), name="breast-cancer-569")
        return self.story.data

    def hospital_grants(self) -> Grant:
        """The hospital lets the company's app use the table for the researcher: paid, counted, for research, for a month."""
        data, app = _there(self.story.data), _there(self.story.app)
        researcher = self._as("researcher").connection.address
        self.story.grant = self._as("hospital").grant_access(
            data,
            app=app,
            user=researcher,
            price=DATA_PRICE,
            accesses=3,
            until=datetime.now(UTC) + timedelta(days=GRANT_DAYS),
            purposes=[PURPOSE],
        )
        return self.story.grant

    def researcher_runs(self) -> Run:
        """The researcher pays and waits; the app trains inside the enclave."""
        researcher = self._as("researcher")
        missing = parse_nrlc(TOTAL_PRICE) - researcher.account.balances().stake
        if missing > 0:
            researcher.account.deposit(missing)
        self.story.before = self.balances()
        self.story.run = self._attempt(researcher)
        self.story.after = self.balances()
        return self.story.run

    def researcher_opens(self) -> Story:
        """The researcher opens the sealed result: metrics, a confusion matrix and the model."""
        run = _there(self.story.run)
        result = run.result
        if not result.encrypted:
            raise LocalError("the demo's result was not encrypted")
        self._folder.mkdir(parents=True, exist_ok=True)
        self.story.saved = result.save(self._folder)
        self.story.metrics = json.loads(result.read("metrics.json"))
        self.story.receipt = run.receipt.verify()
        return self.story

    def hospital_revokes(self) -> str:
        """The hospital closes its grant on chain. Returns the transaction's hash."""
        return self._as("hospital").revoke_access(_there(self.story.grant))

    def researcher_is_refused(self) -> str:
        """The next attempt must be refused before any money moves. Returns the refusal's words.

        Raises:
            LocalError: it was not refused, or money moved.
        """
        researcher = self._as("researcher")
        stake = researcher.account.balances()
        try:
            self._attempt(researcher)
        except Denied as refusal:
            self.story.refusal = refusal.message
        else:
            raise LocalError("the attempt after the revocation was not refused")
        if researcher.account.balances() != stake:
            raise LocalError("money moved in an attempt that was refused")
        return self.story.refusal

    def balances(self) -> dict[str, Balances]:
        """Money of all parties at this moment."""
        return {role: self._as(role).account.balances() for role in PARTIES}

    def _attempt(self, researcher: DataProtector) -> Run:
        return researcher.process_protected_data(
            _there(self.story.data),
            app=_there(self.story.app),
            data_max_price=DATA_PRICE,
            app_max_price=APP_PRICE,
            workerpool_max_price=RUN_PRICE,
            purpose=PURPOSE,
        )


def _there(value: T | None) -> T:
    if value is None:
        raise LocalError("the demo's steps were called out of order")
    return value


def earned(story: Story, role: str) -> Nrlc | int:
    """What a party has more after the run, in nRLC (negative: less), counting stake and locked stake."""
    before, after = story.before[role], story.after[role]
    return (after.stake + after.locked) - (before.stake + before.locked)


def load_patients() -> Any:
    """The table that scikit-learn ships: 569 patients, 30 measurements, ``target`` (0 malignant, 1 benign).

    Raises:
        ConfigurationError: scikit-learn or pandas is not installed.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise ConfigurationError(
            "the demo's data comes with scikit-learn", hint="pip install 'cloister[demo]'"
        ) from error
    return load_breast_cancer(as_frame=True).frame


def demo_source() -> Path:
    """The folder of the demo's iApp: in the package when installed, else in the checkout."""
    for folder in (Path(__file__).parents[1] / "_apps", Path(__file__).parents[3] / "apps"):
        if (folder / "breast-cancer" / "iapp.toml").is_file():
            return folder / "breast-cancer"
    raise LocalError("the demo's iApp is missing from this installation")


def demo_bundle(on_build: Callable[[], None] = lambda: None) -> Path:
    """The demo's bundle, built once per source."""
    source = demo_source()
    digest = hashlib.sha256()
    for path in sorted(source.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    bundle = home_folder() / "bundles" / f"breast-cancer-{digest.hexdigest()[:16]}.bundle"
    if not bundle.is_file():
        on_build()
        bundle.parent.mkdir(parents=True, exist_ok=True)
        build_bundle(source, bundle)
    return bundle
