"""Rehearsals: an iApp runs here as it will in production, on mock data.

The agent, its inner sandbox and limits, the runtime, the relay, the sealing and the receipt are those of production; an
SMS of this process releases throwaway keys to it on SIMULATED evidence. What production refuses is refused here, with
the same named cause.

    run = rehearse("my-iapp", args="Ada", data={"email": "ada@example.org"})
    assert run.cause is None, run.message
    assert run.read("hello.txt") == b"Hello, Ada"
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloister.attestation.assurance import SIMULATED_WARNING
from cloister.attestation.receipt import VerifiedReceipt
from cloister.errors import InputError, NotFound, quoted
from cloister.generator.bundle import BuiltBundle
from cloister.generator.rehearsal_broker import Broker, ThrowawayPlatform
from cloister.generator.rehearsal_bundle import load_bundle
from cloister.generator.rehearsal_data import find_path, input_location, read_pieces, seal_mock_data
from cloister.generator.rehearsal_host import RehearsalHost
from cloister.generator.rehearsal_settings import (
    Expectation,
    MockRun,
    check_secret,
    load_mock_run,
    parse_secrets,
)
from cloister.protocol.bundles import Manifest
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.params import RequestParams, build_params
from cloister.protocol.policies import AccessPolicy
from cloister.protocol.progress import ProgressMessage
from cloister.protocol.releases import (
    BULK_CAP,
    RefusedDataset,
    Release,
    ReleasedApp,
    ReleasedDataset,
    ResultFormat,
    build_release,
)
from cloister.protocol.signatures import PrivateKey
from cloister.sealing.envelope import HpkePrivateKey
from cloister.sealing.results import open_result
from cloister.worker.relay import EnclaveFailed, RelayOutcome, RelayTask, run_relay
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec, Platform

CHAIN_ID = 421614
_HUB, _WORKER, _REQUESTER, _APP, _CALLBACK = (Address("0x" + f"{number:02x}" * 20) for number in range(0xA1, 0xA6))
_DEAL = Bytes32("0x" + "77" * 32)
_APP_LOCATION = "/rehearsal/app"
_BULK_CID = "bafyrehearsal234567"
_SPARE_SECONDS = 120
"""Beyond the iApp's own seconds, until the deadline of the made-up task."""
_OWN = ("receipt.cose", "stdout.txt", "stderr.txt", "usage.json")
"""What the enclave adds to a result."""
_LEFT_CAP = 200
Listener = Callable[[str, ProgressMessage | None], None]
"""Told each step by its word; and with the word ``PROGRESS`` what the iApp said."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How a rehearsal ended. ``cause`` is None when the iApp did its work; else ``message`` says what went wrong.

    ``files`` are the result's, by name, without what the enclave adds. ``exit_code`` is None when the iApp never ran.
    ``seconds`` and ``peak_memory_bytes`` are what it took. ``progress`` is what it told of: a fraction (None: unknown)
    and a message. ``callback`` is the data for a callback contract. ``receipt`` is proven; None when there was no result.
    ``warnings``: what production might not like. ``unmet``: what ``mock/run.toml`` expected and did not come. ``timings``:
    seconds of each part of the rehearsal. ``result`` is the opened archive.
    """

    cause: str | None
    message: str
    manifest: Manifest
    exit_code: int | None = None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    progress: tuple[tuple[float | None, str], ...] = ()
    callback: bytes = b""
    receipt: VerifiedReceipt | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()
    expected: Expectation | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    result: bytes = field(default=b"", repr=False)

    notice = SIMULATED_WARNING
    """What must stand beside anything that is shown of a rehearsal."""

    @property
    def unmet(self) -> tuple[str, ...]:
        """What was expected and did not come; without an expectation, success is."""
        return (self.expected or Expectation()).unmet(self.cause, self.files)

    def read(self, name: str) -> bytes:
        """One file of the result. Raises NotFound, which names what there is."""
        if name not in self.files:
            there = ", ".join(self.files) or "nothing"
            hint = f"there is: {there}" if self.cause is None else f"{self.cause}: {self.message}"
            raise NotFound(f"the result holds no {quoted(name)}", hint=hint)
        return self.files[name]

    def json(self, name: str) -> Any:
        """One file of the result, parsed. Raises NotFound, InputError."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise InputError(f"{quoted(name)} is not JSON") from error


@dataclass(frozen=True, slots=True)
class Request:
    """What one rehearsal is asked to do. None: as ``mock/run.toml`` says."""

    args: str | None = None
    data: object = None
    bulk: Iterable[object] | None = None
    input_files: Iterable[str | Path] | None = None
    secrets: Mapping[int, str] | None = field(default=None, repr=False)
    app_secret: str | None = field(default=None, repr=False)
    purpose: str | None = None
    connect: Mapping[str, str] | None = None
    callback: bool | None = None
    max_result_bytes: int | None = None

    def over(self, mock: MockRun) -> Request:
        """This request where it says something, the settings' where it does not."""
        data, bulk = self.data, self.bulk
        if data is None and bulk is None:
            data, bulk = mock.data, mock.bulk
        return Request(
            args=mock.args if self.args is None else self.args,
            data=data,
            bulk=bulk,
            input_files=mock.input_files if self.input_files is None else self.input_files,
            secrets=mock.secrets if self.secrets is None else parse_secrets(self.secrets),
            app_secret=mock.app_secret if self.app_secret is None else check_secret("app secret", self.app_secret),
            purpose=mock.purpose if self.purpose is None else self.purpose,
            connect=mock.connect if self.connect is None else self.connect,
            callback=mock.callback if self.callback is None else self.callback,
            max_result_bytes=mock.max_result_bytes if self.max_result_bytes is None else self.max_result_bytes,
        )


def _unheard(step: str, message: ProgressMessage | None) -> None:
    """Nobody listens."""


def rehearse(
    folder: str | Path,
    *,
    args: str | None = None,
    data: object = None,
    bulk: Iterable[object] | None = None,
    input_files: Iterable[str | Path] | None = None,
    secrets: Mapping[int, str] | None = None,
    app_secret: str | None = None,
    purpose: str | None = None,
    connect: Mapping[str, str] | None = None,
    callback: bool | None = None,
    max_result_bytes: int | None = None,
    defaults: bool = True,
    stage: Stage | None = None,
    listener: Listener = _unheard,
) -> Rehearsal:
    """Run the iApp in ``folder`` as production would, and open its result. None takes what ``mock/run.toml`` says;
    ``defaults=False`` leaves that file aside.

    ``data``: a path in ``mock/`` or from here, or any object that can be protected; ``bulk`` several, where None is one
    that its owner refuses. ``input_files``: paths or public URLs. ``purpose``: what the data is granted for and the
    request says it is for. ``max_result_bytes``: the data owner's limit. ``listener`` is told the steps. A ``stage``
    serves many rehearsals and makes them quicker.

    A failure of the iApp or of the platform is no exception here: ``cause`` names it.

    Raises:
        NotFound, InputError, TooLarge: the folder is no iApp, cannot be bundled, or a setting or mock cannot be used.
        ConfigurationError: this machine cannot start enclaves.
    """
    request = Request(args, data, bulk, input_files, secrets, app_secret, purpose, connect, callback, max_result_bytes)
    if stage is not None:
        return stage.rehearse(Path(folder), request, defaults=defaults, listener=listener)
    with Stage() as own:
        return own.rehearse(Path(folder), request, defaults=defaults, listener=listener)


class Stage:
    """Where rehearsals take place: a runtime, a throwaway platform, and an enclave that starts while others build.

    For one thread. Entering it begins to start an enclave; ``warm`` keeps one ready after each rehearsal.
    """

    def __init__(self, *, warm: bool = False) -> None:
        self._warm = warm
        self._platform: ThrowawayPlatform | None = None
        self._runtime: BubblewrapRuntime | None = None
        self._starting: _Starting | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the enclave that waits, and the runtime."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.drop()
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None

    def _start(self) -> None:
        if self._starting is None:
            self._starting = _Starting(self._launch)

    def _launch(self) -> EnclaveProcess:
        if self._platform is None:
            self._platform = ThrowawayPlatform()
        if self._runtime is None:
            self._runtime = BubblewrapRuntime()
        return self._runtime.launch(EnclaveSpec(Platform("simulated", self._platform.material)))

    def rehearse(
        self, folder: Path, request: Request, *, defaults: bool = True, listener: Listener = _unheard
    ) -> Rehearsal:
        """One rehearsal; see ``rehearse``."""
        clock = _Clock()
        self._start()
        folder = folder.resolve()
        mock = load_mock_run(folder) if defaults else MockRun(folder / "mock")
        request = request.over(mock)
        listener("BUNDLE", None)
        bundle, _ = load_bundle(folder)
        clock.lap("bundle")
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cloister-rehearsal-")))
            listener("MOCK_DATA", None)
            props = _build_props(request, mock.folder, work, bundle)
            clock.lap("mock data")
            starting, self._starting = self._starting, None
            assert starting is not None  # noqa: S101  # started above
            process = starting.take()
            stack.callback(process.kill)
            clock.lap("enclave")
            if self._warm:
                self._start()
            performance = _Performance(self._require_platform(), props, bundle, request, work / "result", listener)
            done = performance.run(process, clock)
        return replace(done, expected=mock.expect, timings=clock.laps)

    def _require_platform(self) -> ThrowawayPlatform:
        assert self._platform is not None  # noqa: S101  # an enclave was launched on it
        return self._platform


class _Clock:
    """Laps, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 4)
        self._last = now


class _Starting:
    """An enclave on its way, in a thread of its own."""

    def __init__(self, launch: Callable[[], EnclaveProcess]) -> None:
        self._process: EnclaveProcess | None = None
        self._error: BaseException | None = None
        self._launch = launch
        self._thread = threading.Thread(target=self._run, name="rehearsal-enclave", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._process = self._launch()
        except BaseException as error:  # noqa: BLE001  # whoever takes it hears of it
            self._error = error

    def take(self) -> EnclaveProcess:
        """The started enclave. Raises what starting it raised."""
        self._thread.join()
        if self._process is None:
            raise self._error or InputError("no enclave was started")
        if self._process.wait(0) is None:
            return self._process
        self._process.kill()  # it died while it waited
        return self._launch()

    def drop(self) -> None:
        self._thread.join()
        if self._process is not None:
            self._process.kill()


@dataclass(frozen=True, slots=True)
class _Props:
    """What a request became: sealed data, files under locations, and the words of the order."""

    content: Mapping[str, Path]
    dataset: ReleasedDataset | None
    bulk: tuple[ReleasedDataset | RefusedDataset, ...] | None
    params: RequestParams
    key: HpkePrivateKey = field(repr=False)


def _build_props(request: Request, mock: Path, work: Path, bundle: BuiltBundle) -> _Props:
    content: dict[str, Path] = {_APP_LOCATION: bundle.path}
    dataset, bulk = None, None
    if request.data is not None and request.bulk is not None:
        raise InputError("data and bulk are both given", hint="a task has one protected data or a bulk of them")
    if request.data is not None:
        dataset, sealed = seal_mock_data(_found(request.data, mock), "data", work)
        content[dataset.multiaddr] = sealed
    if request.bulk is not None:
        bulk = tuple(_item(number, item, mock, work, content) for number, item in enumerate(request.bulk, 1))
        if not 0 < len(bulk) <= BULK_CAP:
            raise InputError(f"a bulk of {len(bulk)} protected data", hint=f"one task takes 1 to {BULK_CAP}")
    urls = []
    for number, given in enumerate(request.input_files or (), 1):
        if str(given).startswith(("https://", "http://")):
            urls.append(str(given))
            continue
        path = given if isinstance(given, Path) else find_path(given, mock)
        if not path.is_file():
            raise InputError(f"the input file {quoted(str(given))} is not a file")
        urls.append(input_location(number, path))
        content[urls[-1]] = path
    key = HpkePrivateKey.generate(os.urandom)
    params = RequestParams(
        iexec_args=request.args,
        iexec_input_files=tuple(urls),
        iexec_secrets={number: f"secret-{number}" for number in request.secrets or {}},
        iexec_result_encryption=True,
        bulk_cid=None if bulk is None else _BULK_CID,
        cloister_result_key=hashlib.sha256(key.public.raw).hexdigest(),
        cloister_purpose=request.purpose,
    )
    return _Props(content, dataset, bulk, params, key)


def _found(value: object, mock: Path) -> object:
    return find_path(value, mock) if isinstance(value, str) else value


def _item(
    number: int, value: object, mock: Path, work: Path, content: dict[str, Path]
) -> ReleasedDataset | RefusedDataset:
    name = f"data-{number}"
    if value is None or value == "":
        address = "0x" + hashlib.sha256(f"cloister rehearsal {name}".encode()).digest()[:20].hex()
        return RefusedDataset(Address(address), "dataset-refused", "the owner refuses, as the rehearsal was told")
    released, sealed = seal_mock_data(_found(value, mock), name, work)
    content[released.multiaddr] = sealed
    return released


class _Performance:
    """One task, from release to opened result."""

    def __init__(
        self,
        platform: ThrowawayPlatform,
        props: _Props,
        bundle: BuiltBundle,
        request: Request,
        result: Path,
        listener: Listener,
    ) -> None:
        sms = PrivateKey(os.urandom(32))
        purposes = () if request.purpose is None else (request.purpose,)
        access = AccessPolicy(os.urandom(16), purposes=purposes, max_result_bytes=request.max_result_bytes)
        self._props = props
        self._manifest = bundle.manifest
        self._result = result
        self._release = _build_release(props, bundle, request)
        build_release(self._release)  # too large is the caller's to hear, before anything starts
        broker = Broker(platform, sms, self._release, access, request.purpose)
        self._broker = broker
        self._host = RehearsalHost(broker, props.key, props.content, result, listener)
        self._task = RelayTask(
            task_id=self._release.task_id,
            worker=_WORKER,
            chain_id=CHAIN_ID,
            hub=_HUB,
            sms=sms.address,
            app_location=_APP_LOCATION,
            app_checksum=bundle.digest,
            deadline=self._release.deadline,
            dataset_location=None if props.dataset is None else props.dataset.multiaddr,
            input_files=props.params.iexec_input_files,
            bulk=props.bulk is not None,
        )

    def run(self, process: EnclaveProcess, clock: _Clock) -> Rehearsal:
        try:
            outcome = run_relay(process, self._task, self._host)
        except EnclaveFailed as error:
            clock.lap("task")
            return Rehearsal(error.cause, error.message, self._manifest, progress=self._progress())
        clock.lap("task")
        opened = self._open(outcome)
        clock.lap("result")
        return opened

    def _open(self, outcome: RelayOutcome) -> Rehearsal:
        archive = b"".join(open_result(self._props.key, read_pieces(self._result), context=self._release.task_id.raw))
        files = _unzip(archive)
        receipt = self._broker.verify(files["receipt.cose"], outcome.result_digest)
        usage = json.loads(files.get("usage.json", b"{}"))
        times = self._host.times
        begun = times.get("DATA_DOWNLOADED")
        seconds = 0.0 if begun is None else times.get("COMPUTED", begun) - begun
        return Rehearsal(
            cause=outcome.cause,
            message=_message(outcome.cause, files),
            manifest=self._manifest,
            exit_code=usage.get("exit_code"),
            files={name: content for name, content in files.items() if name not in _OWN},
            stdout=files.get("stdout.txt", b"").decode(errors="replace"),
            stderr=files.get("stderr.txt", b"").decode(errors="replace"),
            seconds=float(usage.get("seconds", seconds)),
            peak_memory_bytes=int(usage.get("peak_memory_bytes", 0)),
            progress=self._progress(),
            callback=outcome.results_callback,
            receipt=receipt,
            result=archive,
        )

    def _progress(self) -> tuple[tuple[float | None, str], ...]:
        return tuple((said.fraction, said.message) for said in self._host.progress_heard)


def _build_release(props: _Props, bundle: BuiltBundle, request: Request) -> Release:
    return Release(
        task_id=Bytes32.from_raw(os.urandom(32)),
        deal_id=_DEAL,
        index=0,
        bot_first=0,
        bot_size=1,
        chain_id=CHAIN_ID,
        hub=_HUB,
        worker=_WORKER,
        beneficiary=_REQUESTER,
        requester=_REQUESTER,
        callback=_CALLBACK if request.callback else ZERO_ADDRESS,
        params=build_params(props.params),
        app=ReleasedApp(_APP, _APP_LOCATION, bundle.digest),
        dataset=props.dataset,
        bulk=props.bulk,
        result_format=ResultFormat.HPKE,
        result_public_key=props.key.public.raw,
        deadline=int(time.time()) + bundle.manifest.resources.seconds + _SPARE_SECONDS,
        max_result_bytes=request.max_result_bytes,
        app_secret=request.app_secret,
        requester_secrets={str(number): text for number, text in (request.secrets or {}).items()},
        logs=True,
    )


def _unzip(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def _message(cause: str | None, files: Mapping[str, bytes]) -> str:
    """What the agent says of a failed iApp, from the result that it made in the iApp's place."""
    if cause is None:
        return ""
    return str(json.loads(files["computed.json"]).get("error-message", ""))
