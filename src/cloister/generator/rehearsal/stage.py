"""Rehearsals: an iApp runs here as it will in production, on mock data.

The agent, its inner sandbox and limits, the runtime, the relay, the sealing and the receipt are those of production; an
SMS of this process releases throwaway keys to it on SIMULATED evidence. What production refuses is refused here, with
the same named cause.

    run = rehearse("my-iapp", args="Ada", data={"email": "ada@example.org"})
    assert run.cause is None, run.message
    assert run.read("hello.txt") == b"Hello, Ada"
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cloister.attestation.evidence import EvidenceKind
from cloister.errors import PolicyRejected, quoted
from cloister.generator.bundle import BuiltBundle
from cloister.generator.rehearsal.broker import Broker
from cloister.generator.rehearsal.bundle import load_bundle
from cloister.generator.rehearsal.data import read_pieces
from cloister.generator.rehearsal.enclaves import Enclaves, ThrowawayPlatform
from cloister.generator.rehearsal.host import RehearsalHost
from cloister.generator.rehearsal.outcome import Rehearsal, find_warnings
from cloister.generator.rehearsal.request import Props, Request, build_props
from cloister.generator.rehearsal.servers import start_servers
from cloister.generator.rehearsal.settings import (
    MockRun,
    load_mock_run,
)
from cloister.protocol.bundles import Manifest
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.params import build_params
from cloister.protocol.policies import AccessPolicy, PolicyFacts, check_policy
from cloister.protocol.progress import ProgressMessage
from cloister.protocol.releases import (
    RefusedDataset,
    Release,
    ReleasedApp,
    ReleasedDataset,
    ResultFormat,
    build_release,
)
from cloister.protocol.signatures import PrivateKey
from cloister.sealing.results import open_result
from cloister.worker.addresses import Addresses
from cloister.worker.connecting import Connector
from cloister.worker.relay import EnclaveFailed, RelayOutcome, RelayTask, run_relay
from cloister.worker.runtimes.runtime import EnclaveProcess

__all__ = ["Listener", "Rehearsal", "Request", "Stage", "rehearse"]

CHAIN_ID = 421614
_HUB, _WORKER, _REQUESTER, _APP, _CALLBACK = (Address("0x" + f"{number:02x}" * 20) for number in range(0xA1, 0xA6))
_DEAL = Bytes32("0x" + "77" * 32)
_APP_LOCATION = "/rehearsal/app"
_SPARE_SECONDS = 120
"""Beyond the iApp's own seconds, until the deadline of the made-up task."""
_OWN = ("receipt.cose", "stdout.txt", "stderr.txt", "usage.json")
"""What the enclave adds to a result."""
Listener = Callable[[str, ProgressMessage | None], None]
"""Told each step by its word; and with the word ``PROGRESS`` what the iApp said."""


def _unheard(step: str, message: ProgressMessage | None) -> None:
    """Nobody listens."""


def rehearse(
    folder: str | Path,
    *,
    args: str | None = None,
    data: object = None,
    bulk: Iterable[object] | None = None,
    input_files: Iterable[str | Path] | None = None,
    private_files: Iterable[str | Path] | None = None,
    secrets: Mapping[int, str] | None = None,
    app_secret: str | None = None,
    purpose: str | None = None,
    connect: Mapping[str, str] | None = None,
    callback: bool | None = None,
    max_result_bytes: int | None = None,
    category: int = 0,
    defaults: bool = True,
    stage: Stage | None = None,
    listener: Listener = _unheard,
) -> Rehearsal:
    """Run the iApp in ``folder`` as production would, and open its result. None takes what ``mock/run.toml`` says;
    ``defaults=False`` leaves that file aside.

    ``data``: a path in ``mock/`` or from here, or any object that can be protected; ``bulk`` several, where None is one
    that its owner refuses. ``input_files``: paths or public URLs; ``private_files``: paths, sealed to the enclave.
    ``purpose``: what the data is granted for and the request says it is for. ``max_result_bytes``: the data owner's limit.
    ``category`` is the one that it would run in. ``listener`` is told the steps. A ``stage`` serves many rehearsals and
    makes them quicker.

    A failure of the iApp or of the platform is no exception here: ``cause`` names it.

    Raises:
        NotFound, InputError, TooLarge: the folder is no iApp, cannot be bundled, or a setting or mock cannot be used.
        ConfigurationError: this machine cannot start enclaves.
    """
    request = Request(
        args=args,
        data=data,
        bulk=bulk,
        input_files=input_files,
        private_files=private_files,
        secrets=secrets,
        app_secret=app_secret,
        purpose=purpose,
        connect=connect,
        callback=callback,
        max_result_bytes=max_result_bytes,
        category=category,
    )
    if stage is not None:
        return stage.rehearse(Path(folder), request, defaults=defaults, listener=listener)
    with Stage() as own:
        return own.rehearse(Path(folder), request, defaults=defaults, listener=listener)


class Stage:
    """Where rehearsals take place: a runtime, a throwaway platform, and an enclave that starts while others build.

    For one thread. Entering it begins to start an enclave; ``warm`` keeps one ready after each rehearsal. ``enclaves`` that
    were begun elsewhere end with it.
    """

    def __init__(self, enclaves: Enclaves | None = None, *, warm: bool = False) -> None:
        self._warm = warm
        self._enclaves = enclaves or Enclaves()

    def __enter__(self) -> Self:
        self._enclaves.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the enclave that waits, and the runtime."""
        self._enclaves.close()

    def rehearse(
        self,
        folder: Path,
        request: Request,
        *,
        defaults: bool = True,
        keep: Path | None = None,
        listener: Listener = _unheard,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Rehearsal:
        """One rehearsal; see ``rehearse``. In ``keep``, an empty folder, all that travelled is left: sealed data, sealed
        result. ``tell`` hears what the author should know of the build.
        """
        clock = _Clock()
        self._enclaves.start()
        folder = folder.resolve()
        mock = load_mock_run(folder) if defaults else MockRun(folder / "mock")
        request = request.over(mock)
        listener("BUNDLE", None)
        bundle = load_bundle(folder, tell)
        clock.lap("bundle")
        with ExitStack() as stack:
            work = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cloister-rehearsal-")))
            listener("MOCK_DATA", None)
            props = build_props(request, mock.folder, work)
            clock.lap("mock data")
            process = self._enclaves.take()
            stack.callback(process.kill)
            clock.lap("enclave")
            listener("TASK", None)
            if self._warm:
                self._enclaves.start()
            places = start_servers(request.connect or {}, mock.folder, work, stack)
            connector = Connector(Addresses(), places)
            clock.lap("mock servers")
            platform = self._enclaves.platform
            performance = _Performance(platform, props, bundle, request, work / "result", connector, listener)
            done = performance.run(process, clock)
        return replace(
            done,
            expected=mock.expect if defaults else None,
            timings=clock.laps,
            warnings=find_warnings(done, request.category),
            digest=bundle.digest,
            bundle_bytes=bundle.size,
        )


class _Clock:
    """Laps, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 4)
        self._last = now


class _Performance:
    """One task, from release to opened result."""

    def __init__(
        self,
        platform: ThrowawayPlatform,
        props: Props,
        bundle: BuiltBundle,
        request: Request,
        result: Path,
        connector: Connector,
        listener: Listener,
    ) -> None:
        sms = PrivateKey(os.urandom(32))
        access = _build_access(props, request)
        props = replace(props, bulk=_judge_bulk(props, access, request, bundle.manifest))
        self._props = props
        self._manifest = bundle.manifest
        self._result = result
        self._release = _build_release(props, bundle, request)
        build_release(self._release)  # too large is the caller's to hear, before anything starts
        # A bulk's grants refuse their items, one by one; only the grant of a single data refuses the session.
        single = AccessPolicy(os.urandom(16)) if props.dataset is None else access
        broker = Broker(platform, sms, self._release, single, request.purpose)
        self._broker = broker
        self._host = RehearsalHost(
            broker, props.key, {**props.content, _APP_LOCATION: bundle.path}, result, listener, connector
        )
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
            network=bool(bundle.manifest.network),
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


def _build_access(props: Props, request: Request) -> AccessPolicy:
    """What the owners of the mock data allow. Where there are none, nobody asks for a purpose."""
    purposes = () if request.purpose is None or (props.dataset is None and props.bulk is None) else (request.purpose,)
    return AccessPolicy(os.urandom(16), purposes=purposes, max_result_bytes=request.max_result_bytes)


def _judge_bulk(
    props: Props, access: AccessPolicy, request: Request, manifest: Manifest
) -> tuple[ReleasedDataset | RefusedDataset, ...] | None:
    """The items of a bulk as an SMS releases or refuses them."""
    if props.bulk is None:
        return None
    facts = PolicyFacts(int(time.time()), EvidenceKind.SIMULATED.value, request.purpose, manifest.purposes)
    try:
        check_policy(access, facts)
    except PolicyRejected as error:
        return tuple(RefusedDataset(item.address, error.code, quoted(error.message)) for item in props.bulk)
    return props.bulk


def _build_release(props: Props, bundle: BuiltBundle, request: Request) -> Release:
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
        requester_secrets={str(number): text for number, text in props.secrets.items()},
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
