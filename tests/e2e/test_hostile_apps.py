"""Apps that crash, hang, take everything or give nothing: the task ends with a named cause, and the next one runs."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from tests.support.network import RUN_PRICE, LiveNetwork, wait_for, write_app

from cloister import DataProtector
from cloister.errors import NotFound
from cloister.generator.bundle import build_bundle
from cloister.sdk.apps import App

CAUSES = {
    "crash": "APP_COMPUTE_FAILED",
    "hang": "APP_COMPUTE_TIMEOUT",
    "memory": "APP_MEMORY_EXCEEDED",
    "disk": "APP_DISK_EXCEEDED",
    "fork": "APP_PROCESSES_EXCEEDED",
    "files": "APP_OUTPUT_FILES_EXCEEDED",
    "stubborn": "APP_COMPUTE_TIMEOUT",
    "escape": "POST_COMPUTE_RESULT_FILE_NOT_FOUND",
    "nothing": "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND",
}


@pytest.fixture(scope="module")
def hasty(live: LiveNetwork, tmp_path_factory: pytest.TempPathFactory) -> App:
    """The probe with three seconds to live."""
    company = live.connect("company")
    bundle = build_bundle(write_app(tmp_path_factory.mktemp("hasty"), name="hasty", seconds=3))
    app = company.apps.deploy(bundle.path, name="hasty")
    company.apps.publish(app.address)
    return app


def test_every_failure_of_an_app_is_a_result_with_its_cause(live: LiveNetwork, hasty: App, app: App) -> None:
    requester = live.newcomer(stake="1 RLC")
    runs = {
        action: requester.process_protected_data(
            None, app=hasty, args=action, workerpool_max_price="0.02 RLC", wait=False
        )
        for action in CAUSES
    }
    seen = {}
    for action, run in runs.items():
        run.wait(60)
        text = run.result.read("error.txt").decode()
        seen[action] = text.partition("causes:[")[2].partition("]")[0]
        told = json.loads(run.result.read("computed.json"))
        assert told["deterministic-output-path"] == "/iexec_out/error.txt"
        assert told["error-message"]
        claims = run.receipt.verify().claims
        assert claims.cause == seen[action]
        failure = run.result.failure()
        assert failure is not None
        assert (failure.cause, failure.message) == (seen[action], told["error-message"])
        told_by_worker = wait_for("the worker's word", lambda: requester.tasks.debug(run.task_id).cause)  # noqa: B023
        assert seen[action] in told_by_worker
        assert "Traceback" not in text
    assert seen == CAUSES
    after = requester.account.balances()
    assert (after.stake, after.locked) == (10**9 - len(runs) * RUN_PRICE, 0), "the workerpool worked, so it is paid"
    next_run = requester.process_protected_data(None, app=app, workerpool_max_price="0.02 RLC", timeout=60)
    assert json.loads(next_run.result.read("answer.json"))["task"] == next_run.task_id


def test_an_app_that_pries_finds_every_door_shut_and_what_it_prints_stays_inside(
    live: LiveNetwork, app: App, requester: DataProtector
) -> None:
    owner = live.newcomer()
    data = owner.protect_data({"diagnosis": "only the patient's"}, name="record")
    owner.grant_access(data, app=app, user=requester.connection.address)
    run = requester.process_protected_data(data, app=app, args="pry", workerpool_max_price="0.02 RLC", timeout=60)
    assert json.loads(run.result.read("answer.json")) == []
    assert run.result.failure() is None
    assert not any(b"only the patient's" in run.result.read(name) for name in run.result.names())
    (logs,) = requester.tasks.logs(run.task_id)
    assert "only the patient's" not in logs.stdout + logs.stderr
    assert "withheld" in logs.stderr


def test_an_app_cannot_outlive_the_tasks_category(app: App, short: int, requester: DataProtector) -> None:
    # The manifest allows 20 seconds; the category's last moment to contribute is 14 seconds after the deal.
    run = requester.process_protected_data(
        None, app=app, args="hang", category=short, workerpool_max_price="0.02 RLC", timeout=60
    )
    assert b"causes:[APP_COMPUTE_TIMEOUT]" in run.result.read("error.txt")


def test_a_missing_entry_point_is_named_when_building(tmp_path: Path) -> None:
    folder = write_app(tmp_path / "app", entrypoint="start.py")
    with pytest.raises(NotFound, match=r"the entry point start\.py is not in") as refused:
        build_bundle(folder)
    assert refused.value.hint == "create the file, or name another one in iapp.toml"
    assert not (folder / "build").exists()


def without_entry_point(bundle: Path, target: Path) -> Path:
    """A bundle by hand: its manifest names a file that is not in it."""
    with tarfile.open(bundle) as source, tarfile.open(target, "w", format=source.format) as made:
        for member in source:
            file = source.extractfile(member)
            content = b"" if file is None else file.read()
            if member.name == "manifest.json":
                content = content.replace(b'"main.py"', b'"gone.py"')
            member.size = len(content)
            made.addfile(member, io.BytesIO(content) if member.isfile() else None)
    return target
