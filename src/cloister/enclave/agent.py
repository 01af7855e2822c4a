"""The program inside the enclave: ``python -m cloister.enclave.agent CHANNEL``, an inherited descriptor or the path of a socket.

It does one task and ends. In order: harden itself; say what it is and take the platform; take the task; have the hardware
measure the app;
fetch the app and check its digest; make two keys, attest, be given the release; fetch, check and open the inputs; run
the iApp in a sandbox of its own; check and hash its outputs; write the receipt; seal; give the result to the host;
sign its digest.

Exit codes: 0 the result was given; 1 the platform failed and the host knows the named cause; 2 the host is gone.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from cloister.attestation.issuance import InputDigest, ReceiptClaims, build_receipt
from cloister.enclave.attesters.attester import Attester
from cloister.enclave.attesters.choice import choose_attester
from cloister.enclave.bulk import BULK_NAME, WIDTH, BulkOutcome, build_causes, build_report, dataset_use, fetch_slice
from cloister.enclave.bundle import Bundle
from cloister.enclave.causes import AppError, Cause, TaskError
from cloister.enclave.countersigning import fetch_countersignature
from cloister.enclave.environment import INPUT_DIRECTORY, build_command, build_environment, dataset_file_name
from cloister.enclave.filesystem import Mount
from cloister.enclave.hardening import forbid_network, harden
from cloister.enclave.host import CHANNEL_VERSION, CHUNK, HostChannel
from cloister.enclave.images.image import Image
from cloister.enclave.inputs import fetch_app, fetch_dataset, fetch_input_file, load_input_key
from cloister.enclave.measurement import FILES, measure_agent, package_root
from cloister.enclave.outputs import (
    RECEIPT_NAME,
    Outputs,
    build_error_outputs,
    collect_outputs,
    seal_archive,
    write_archive,
    write_sealed,
)
from cloister.enclave.progress import attach, open_pipe
from cloister.enclave.runtimes import SUPPORT_ROOMS, SUPPORT_TARGET, find_interpreter
from cloister.enclave.sandbox import Limits, SandboxRun, SandboxSpec, run_sandboxed
from cloister.enclave.session import EnclaveKeys, Session, TaskHint, open_session, parse_task_hint
from cloister.enclave.streams import Streams
from cloister.errors import CloisterError, UnavailableError
from cloister.protocol.codec import canonical_json, to_hex
from cloister.protocol.params import RequestParams, parse_params
from cloister.protocol.releases import Release
from cloister.protocol.results import enclave_message, result_hash, result_seal

MAX_RESULT = 50 << 20
"""Bytes of a result's files where the release names no limit (reference 6.1)."""
MAX_FILES = 1000
_CLOSING_SECONDS = 5.0
"""Kept back from the task's deadline, to seal and give the result."""
_MIB = 1 << 20


def main(arguments: list[str]) -> int:
    """Run the agent on its channel. Returns the exit code."""
    harden()
    host = HostChannel(_open_channel(arguments[0]))
    try:
        return _serve(host, Path("/tmp"))  # noqa: S108  # the enclave's own memory, private to it
    except UnavailableError:
        return 2


def _open_channel(place: str) -> socket.socket:
    """The inherited descriptor, or a connection to the socket that the host shows at a path."""
    if not place.startswith("/"):
        return socket.socket(fileno=int(place))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(place)
    return connection


def _serve(host: HostChannel, work: Path) -> int:
    measurement = measure_agent()
    keys = EnclaveKeys()
    host.send("ready", {"version": CHANNEL_VERSION, "measurement": to_hex(measurement)})
    try:
        platform = host.receive("platform", forever=True)
        attester = choose_attester(str(platform.header.get("platform")), platform.body, measurement)
        hint = parse_task_hint(dict(host.receive("task", forever=True).header))
        _run_task(host, hint, keys, attester, work)
    except CloisterError as error:
        host.fail(error)
        return 1
    except Exception as error:  # noqa: BLE001
        # What went wrong may quote secrets; its kind does not.
        host.fail(TaskError(Cause.PRE_COMPUTE_FAILED_UNKNOWN_ISSUE, f"the agent failed: {type(error).__name__}"))
        return 1
    finally:
        keys.wipe()
    return 0


def _run_task(host: HostChannel, hint: TaskHint, keys: EnclaveKeys, attester: Attester, work: Path) -> None:
    attester.measure_app(hint.app_digest.raw)
    app = fetch_app(host, hint.app_location, hint.app_digest, work / "bundle")
    _settle_network(app, hint)
    host.send("report", {"status": "APP_DOWNLOADED"})
    session = open_session(host, hint, keys, attester, app.manifest.purposes)
    keys.hpke.wipe()
    release = session.release
    params = parse_params(release.params, allow_unknown=True)
    _check_bulk(release, params)
    inputs = _Inputs(host, release, params, work / "iexec_in")
    with _Ending() as ending:
        streams, outputs = _compute(host, app, session, keys, params, inputs, ending)
        host.send("report", {"status": "COMPUTED", **({} if outputs.cause is None else {"app_cause": outputs.cause})})
        _give_logs(host, release, streams)
        _give_result(host, session, keys, inputs, outputs, streams, ending, work)


def _settle_network(app: Bundle | Image, hint: TaskHint) -> None:
    """The iApp's manifest is known: give up the network for good where it names no hosts."""
    if not app.manifest.network:
        forbid_network()
    elif not hint.network:
        raise TaskError(Cause.NETWORK_REFUSED, "this worker's operator runs no iApps that name hosts to connect to")


def _check_bulk(release: Release, params: RequestParams) -> None:
    if (release.bulk is None) != (params.bulk_cid is None):
        # The receipt would say of a slice what its requester did not ask, or the other way round.
        raise TaskError(Cause.TEE_SESSION_GENERATION_FAILED, "the release and the request differ in being of bulk")


class _Inputs:
    """What goes to ``/iexec_in``."""

    def __init__(self, host: HostChannel, release: Release, params: RequestParams, directory: Path) -> None:
        self._host = host
        self._release = release
        self._params = params
        self._urls = tuple(dict.fromkeys(params.iexec_input_files))  # the same URL twice is one file
        self.directory = directory
        self.digests: dict[str, InputDigest] = {}
        """What lies there, by name."""
        self.bulk: tuple[BulkOutcome, ...] | None = None

    def fetch(self) -> None:
        """Fetch, check and open all inputs.

        Raises:
            AppError: the requester named an input file that is not to be had, or does not open. TaskError: another
                failure.
        """
        self.directory.mkdir(mode=0o755)
        dataset, items = self._release.dataset, self._release.bulk
        if dataset is not None:
            name = dataset_file_name(self._release)
            self._add(fetch_dataset(self._host, dataset, self.directory, name, seconds=self._seconds_left()))
        if items is not None:
            self.bulk = fetch_slice(self._host, items, self.directory, seconds_left=self._seconds_left)
            for outcome in self.bulk:
                self._add(outcome.digest)
        self._fetch_files()

    def _fetch_files(self) -> None:
        key = load_input_key(self._release, self._params)
        try:
            for position, url in enumerate(self._urls):
                number = self._params.iexec_input_files.index(url) + 1
                ahead = self._urls[position + 1 : position + WIDTH]
                self._add(fetch_input_file(self._host, url, self.directory, number=number, key=key, ahead=ahead))
        finally:
            if key is not None:
                key.wipe()

    def _add(self, digest: InputDigest | None) -> None:
        if digest is not None:
            self.digests[digest.name] = digest

    def _seconds_left(self) -> float:
        return max(1.0, self._release.deadline - time.time())


class _Ending:
    """Closes the handle on the iApp's outputs when the result was given. ``said``: bytes that it said as progress, which
    count as a part of its result.
    """

    def __init__(self) -> None:
        self.handle = -1
        self.said = 0

    def __enter__(self) -> _Ending:
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle >= 0:
            os.close(self.handle)


def _compute(
    host: HostChannel,
    app: Bundle | Image,
    session: Session,
    keys: EnclaveKeys,
    params: RequestParams,
    inputs: _Inputs,
    ending: _Ending,
) -> tuple[Streams, Outputs]:
    """Fetch the inputs and run the iApp. Its failure is a result too."""
    streams, release = Streams(), session.release
    try:
        _check_storage(params)
        inputs.fetch()
        host.send("report", {"status": "DATA_DOWNLOADED"})
        spec = _build_spec(app, release, params, inputs)
        if app.manifest.network:
            from cloister.enclave import tunnels  # most iApps have no network, and would wait for it

            proxy = tunnels.Tunnels(host, app.manifest.network)
            spec = tunnels.connect(spec, proxy, app.library if isinstance(app, Bundle) else None)
        pipe = open_pipe(host, session, keys, budget=_limit(release))
        run = run_sandboxed(attach(spec, pipe))
        ending.handle, ending.said = run.output, 0 if pipe is None else pipe.spent
        streams = Streams(run.stdout, run.stderr, run.exit_code, run.seconds, run.peak_memory_bytes)
        _check_run(run)
        limit = _limit(release) - ending.said
        own = frozenset() if release.bulk is None else frozenset({BULK_NAME})
        return streams, collect_outputs(run.output, release, max_bytes=limit, max_files=MAX_FILES, replaced=own)
    except AppError as error:
        return streams, build_error_outputs(error, release)


def _limit(release: Release) -> int:
    """Most bytes that the iApp may put out, whichever way."""
    return MAX_RESULT if release.max_result_bytes is None else release.max_result_bytes


def _check_storage(params: RequestParams) -> None:
    if params.iexec_result_storage_provider == "dropbox":
        # A requester who asked for a place of their own must not find the result in a public one.
        message = "results are stored in this network's own storage only"
        raise AppError(Cause.POST_COMPUTE_DROPBOX_UPLOAD_FAILED, message)


def _check_run(run: SandboxRun) -> None:
    if run.cause is not None:
        raise AppError(run.cause, run.message)


def _build_spec(app: Bundle | Image, release: Release, params: RequestParams, inputs: _Inputs) -> SandboxSpec:
    resources = app.manifest.resources
    left = release.deadline - time.time() - _CLOSING_SECONDS
    if left <= 0:
        raise TaskError(Cause.PRE_COMPUTE_FAILED_UNKNOWN_ISSUE, "the task's deadline is over")
    package = package_root()
    support = tuple(Mount(package / name, f"{SUPPORT_TARGET}/cloister/{name}") for name in (*FILES, *SUPPORT_ROOMS))
    interpreter = find_interpreter(app, support)
    return SandboxSpec(
        command=build_command(interpreter, params),
        environment=build_environment(release, params, interpreter) | build_causes(inputs.bulk),
        mounts=(Mount(inputs.directory, INPUT_DIRECTORY), *interpreter.mounts),
        working_directory=interpreter.directory,
        root=interpreter.root,
        limits=Limits(
            memory_bytes=resources.memory_mib * _MIB,
            disk_bytes=resources.disk_mib * _MIB,
            seconds=min(float(resources.seconds), left),
            processes=resources.processes,
            output_files=MAX_FILES,
            address_space=not interpreter.wide,
        ),
    )


def _give_logs(host: HostChannel, release: Release, streams: Streams) -> None:
    host.send("logs", body=canonical_json(streams.for_host(release)))


def _give_result(
    host: HostChannel,
    session: Session,
    keys: EnclaveKeys,
    inputs: _Inputs,
    outputs: Outputs,
    streams: Streams,
    ending: _Ending,
    work: Path,
) -> None:
    """Receipt, archive, seal, give, sign."""
    release = session.release
    room = _limit(release) - ending.said - sum(file.size for file in outputs.files.values())
    told = streams.for_requester(release, room=max(0, room))
    extra = {name: text for name, text in told.items() if name not in outputs.files}
    if inputs.bulk is not None:
        extra[BULK_NAME] = build_report(inputs.bulk)
    extra[RECEIPT_NAME] = _build_receipt(host, session, keys, inputs, outputs)
    archive, sealed = work / "iexec_out.zip", work / "result"
    with archive.open("x+b") as file:
        try:
            write_archive(outputs, extra, file)
        except OSError as error:
            reason = "the enclave has no room for the result's archive"
            raise TaskError(Cause.POST_COMPUTE_OUT_FOLDER_ZIP_FAILED, reason) from error
        file.seek(0)
        size, sha256 = write_sealed(seal_archive(release, file, entropy=os.urandom), sealed)
    archive.unlink()
    with sealed.open("rb") as result:
        header = {"size": size, "sha256": to_hex(sha256)}
        host.send_stream("result", header, iter(lambda: result.read(CHUNK), b""))
    message = enclave_message(
        result_hash(release.task_id, outputs.digest),
        result_seal(release.worker, release.task_id, outputs.digest),
    )
    host.send(
        "done",
        {
            "result_digest": outputs.digest,
            "enclave_challenge": keys.challenge.address,
            "enclave_signature": to_hex(keys.challenge.sign_message(message)),
            "results_callback": to_hex(outputs.callback),
            "cause": outputs.cause,
        },
    )


def _build_receipt(host: HostChannel, session: Session, keys: EnclaveKeys, inputs: _Inputs, outputs: Outputs) -> bytes:
    release, dataset = session.release, session.release.dataset
    claims = ReceiptClaims(
        binding=session.binding,
        public_key=keys.challenge.public_key,
        deal_id=release.deal_id.raw,
        index=release.index,
        worker=release.worker.raw,
        requester=release.requester.raw,
        app=release.app.address.raw,
        dataset=None if dataset is None else dataset_use(dataset),
        inputs=tuple(inputs.digests.values()),
        result_digest=outputs.digest.raw,
        output_digest=outputs.files_digest(),
        started_at=session.opened_at,
        finished_at=max(int(time.time()), session.opened_at),
        evidence=session.evidence,
        cause=None if outputs.cause is None else outputs.cause.value,
        bulk=None if inputs.bulk is None else tuple(outcome.claim() for outcome in inputs.bulk),
    )
    return build_receipt(
        claims, keys.challenge.sign_digest, lambda digest: fetch_countersignature(host, session, keys, digest)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
