"""The program inside the enclave: ``python -m cloister.enclave.agent CHANNEL_FD``.

It does one task and ends. In order: harden itself; say what it is and take the attester's platform; take the task;
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
from collections.abc import Iterator
from pathlib import Path

from cloister.attestation.issuance import DatasetUse, InputDigest, ReceiptClaims, build_receipt
from cloister.enclave.attesters.attester import Attester
from cloister.enclave.attesters.simulated import load_attester
from cloister.enclave.bundle import LIBRARY_TARGET, SOURCE_TARGET, Bundle
from cloister.enclave.causes import AppError, Cause, TaskError
from cloister.enclave.environment import (
    INPUT_DIRECTORY,
    SUPPORT_TARGET,
    build_command,
    build_environment,
    dataset_file_name,
)
from cloister.enclave.filesystem import Mount
from cloister.enclave.hardening import harden
from cloister.enclave.host import CHANNEL_VERSION, CHUNK, HostChannel
from cloister.enclave.inputs import fetch_bundle, fetch_dataset, fetch_input_file
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
from cloister.enclave.sandbox import Limits, SandboxRun, SandboxSpec, run_sandboxed
from cloister.enclave.session import EnclaveKeys, Session, TaskHint, open_session, parse_task_hint
from cloister.errors import CloisterError, UnavailableError
from cloister.protocol.codec import canonical_json, to_hex
from cloister.protocol.params import RequestParams, parse_params
from cloister.protocol.releases import Release, ResultFormat
from cloister.protocol.results import enclave_message, result_hash, result_seal

MAX_RESULT = 50 << 20
"""Bytes of a result's files where the release names no limit (reference 6.1)."""
MAX_FILES = 1000
_CLOSING_SECONDS = 5.0
"""Kept back from the task's deadline, to seal and give the result."""
_MIB = 1 << 20


def main(arguments: list[str]) -> int:
    """Run the agent on an inherited descriptor. Returns the exit code."""
    harden()
    host = HostChannel(socket.socket(fileno=int(arguments[0])))
    try:
        return _serve(host, Path("/tmp"))  # noqa: S108  # the enclave's own memory, private to it
    except UnavailableError:
        return 2


def _serve(host: HostChannel, work: Path) -> int:
    measurement = measure_agent()
    keys = EnclaveKeys()
    host.send("ready", {"version": CHANNEL_VERSION, "measurement": to_hex(measurement)})
    try:
        attester = load_attester(host.receive("platform", forever=True).body, measurement)
        hint = parse_task_hint(dict(host.receive("task", forever=True).header))
        _run_task(host, hint, keys, attester, work)
    except CloisterError as error:
        host.fail(error)
        return 1
    except Exception as error:  # noqa: BLE001
        # What went wrong may quote secrets; its kind does not.
        host.fail(TaskError(Cause.PRE_COMPUTE_FAILED_UNKNOWN_ISSUE, f"the agent failed: {type(error).__name__}"))
        return 1
    return 0


def _run_task(host: HostChannel, hint: TaskHint, keys: EnclaveKeys, attester: Attester, work: Path) -> None:
    bundle = fetch_bundle(host, hint.app_location, hint.app_digest, work / "bundle")
    host.send("report", {"status": "APP_DOWNLOADED"})
    session = open_session(host, hint, keys, attester, bundle.manifest.purposes)
    keys.hpke.wipe()
    release = session.release
    params = parse_params(release.params, allow_unknown=True)
    _check_bulk(params)
    inputs = _Inputs(host, release, params, work / "iexec_in")
    digests = inputs.fetch()
    host.send("report", {"status": "DATA_DOWNLOADED"})
    with _Ending() as ending:
        logs, outputs = _compute(bundle, release, params, inputs.directory, ending)
        host.send("report", {"status": "COMPUTED", **({} if outputs.cause is None else {"app_cause": outputs.cause})})
        _give_logs(host, release, logs)
        _give_result(host, session, keys, digests, outputs, logs, work)


def _check_bulk(params: RequestParams) -> None:
    if params.bulk_cid is not None:
        raise TaskError(Cause.PRE_COMPUTE_FAILED_UNKNOWN_ISSUE, "this enclave does not run bulk slices")


class _Inputs:
    """What goes to ``/iexec_in``."""

    def __init__(self, host: HostChannel, release: Release, params: RequestParams, directory: Path) -> None:
        self._host = host
        self._release = release
        self._params = params
        self.directory = directory

    def fetch(self) -> tuple[InputDigest, ...]:
        """Fetch, check and open all inputs; answers with their hashes."""
        self.directory.mkdir(mode=0o755)
        return tuple(self._fetched())

    def _fetched(self) -> Iterator[InputDigest]:
        dataset = self._release.dataset
        if dataset is not None:
            yield fetch_dataset(self._host, dataset, self.directory, dataset_file_name(self._release))
        for url in dict.fromkeys(self._params.iexec_input_files):
            yield fetch_input_file(self._host, url, self.directory)


class _Ending:
    """Closes the handle on the iApp's outputs when the result was given."""

    def __init__(self) -> None:
        self.handle = -1

    def __enter__(self) -> _Ending:
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle >= 0:
            os.close(self.handle)


class _Logs:
    """What the iApp printed, and who may read it."""

    def __init__(self, stdout: str = "", stderr: str = "") -> None:
        self.stdout = stdout
        self.stderr = stderr

    def for_requester(self, release: Release) -> dict[str, bytes]:
        """Files for the result, where they may be in it.

        What an iApp prints may hold what it was given. That is not the requester's to read when it was another's, nor
        the world's when the result is not sealed.
        """
        foreign = release.dataset is not None or release.app_secret is not None
        public = release.result_format is ResultFormat.PLAIN and bool(release.requester_secrets)
        if foreign or public:
            return {}
        return {"stdout.txt": self.stdout.encode(errors="replace"), "stderr.txt": self.stderr.encode(errors="replace")}

    def for_host(self, release: Release) -> dict[str, str] | None:
        """What host and scheduler may read: all of it when no party keeps anything secret in this task, else
        nothing.
        """
        secret = release.dataset is not None or release.app_secret is not None or bool(release.requester_secrets)
        if secret or release.result_format is not ResultFormat.PLAIN:
            return None
        return {"stdout": self.stdout, "stderr": self.stderr}


def _compute(
    bundle: Bundle, release: Release, params: RequestParams, inputs: Path, ending: _Ending
) -> tuple[_Logs, Outputs]:
    """Run the iApp. Its failure is a result too."""
    logs = _Logs()
    try:
        _check_runtime(bundle)
        run = run_sandboxed(_build_spec(bundle, release, params, inputs))
        ending.handle = run.output
        logs = _Logs(run.stdout, run.stderr)
        _check_run(run)
        limit = MAX_RESULT if release.max_result_bytes is None else release.max_result_bytes
        return logs, collect_outputs(run.output, release, max_bytes=limit, max_files=MAX_FILES)
    except AppError as error:
        return logs, build_error_outputs(error, release)


def _check_run(run: SandboxRun) -> None:
    if run.cause is not None:
        raise AppError(run.cause, run.message)


def _check_runtime(bundle: Bundle) -> None:
    here = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if bundle.manifest.runtime not in ("python3", here):
        raise AppError(
            Cause.APP_RUNTIME_MISMATCH, f"the app needs {bundle.manifest.runtime} and this enclave has {here}"
        )


def _build_spec(bundle: Bundle, release: Release, params: RequestParams, inputs: Path) -> SandboxSpec:
    resources = bundle.manifest.resources
    left = release.deadline - time.time() - _CLOSING_SECONDS
    if left <= 0:
        raise TaskError(Cause.PRE_COMPUTE_FAILED_UNKNOWN_ISSUE, "the task's deadline is over")
    package = package_root()
    mounts = [Mount(bundle.source, SOURCE_TARGET), Mount(inputs, INPUT_DIRECTORY)]
    if bundle.library.is_dir():
        mounts.append(Mount(bundle.library, LIBRARY_TARGET))
    mounts += [Mount(package / name, f"{SUPPORT_TARGET}/cloister/{name}") for name in FILES]
    mounts.append(Mount(package / "datasets", f"{SUPPORT_TARGET}/cloister/datasets"))
    return SandboxSpec(
        command=build_command(bundle.manifest.entrypoint, params),
        environment=build_environment(release, params),
        mounts=tuple(mounts),
        working_directory=SOURCE_TARGET,
        limits=Limits(
            memory_bytes=resources.memory_mib * _MIB,
            disk_bytes=resources.disk_mib * _MIB,
            seconds=min(float(resources.seconds), left),
            processes=resources.processes,
            output_files=MAX_FILES,
        ),
    )


def _give_logs(host: HostChannel, release: Release, logs: _Logs) -> None:
    readable = logs.for_host(release)
    if readable is not None:
        host.send("logs", body=canonical_json(readable))


def _give_result(
    host: HostChannel,
    session: Session,
    keys: EnclaveKeys,
    inputs: tuple[InputDigest, ...],
    outputs: Outputs,
    logs: _Logs,
    work: Path,
) -> None:
    """Receipt, archive, seal, give, sign."""
    release = session.release
    extra = {name: text for name, text in logs.for_requester(release).items() if name not in outputs.files}
    extra[RECEIPT_NAME] = _build_receipt(session, keys, inputs, outputs)
    archive, sealed = work / "iexec_out.zip", work / "result"
    with archive.open("x+b") as file:
        write_archive(outputs, extra, file)
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


def _build_receipt(session: Session, keys: EnclaveKeys, inputs: tuple[InputDigest, ...], outputs: Outputs) -> bytes:
    release, dataset = session.release, session.release.dataset
    claims = ReceiptClaims(
        binding=session.binding,
        public_key=keys.challenge.public_key,
        deal_id=release.deal_id.raw,
        index=release.index,
        worker=release.worker.raw,
        requester=release.requester.raw,
        app=release.app.address.raw,
        dataset=None
        if dataset is None
        else DatasetUse(
            dataset.address.raw,
            dataset.checksum.raw,
            None if dataset.order_hash is None else dataset.order_hash.raw,
            None if dataset.policy_hash is None else dataset.policy_hash.raw,
        ),
        inputs=inputs,
        result_digest=outputs.digest.raw,
        output_digest=outputs.files_digest(),
        started_at=session.opened_at,
        finished_at=max(int(time.time()), session.opened_at),
        evidence=session.evidence,
        cause=None if outputs.cause is None else outputs.cause.value,
    )
    return build_receipt(claims, keys.challenge.sign_digest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
