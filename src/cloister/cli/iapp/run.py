"""``cloister iapp run`` (and ``cloister run``): an app on protected data, from order to opened result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.requests import Asked, request_options
from cloister.cli.session import Session, deployed_app, options

if TYPE_CHECKING:
    from cloister.sdk.data_protector import DataProtector
    from cloister.sdk.processing import Run
    from cloister.sdk.results import Failure

APP_FAILED = 1
"""Exit code when the task completed and its result says that the app failed."""


@click.command()
@click.argument("app")
@click.option(
    "--data",
    "protected_data",
    multiple=True,
    metavar="ADDRESS",
    help="Protected data to run on; more than one is a bulk request.",
)
@request_options
@click.option("--data-price", default="0", show_default=True, help="The most you pay for the data.")
@click.option(
    "--budget",
    metavar="AMOUNT",
    help='The most the run may cost in all, such as "0.1 RLC": takes the cheapest orders and deposits what is missing.',
)
@click.option("--trust", default=0, show_default=True, help="Replication: 0 and 1 are one worker.")
@click.option(
    "--per-task", default=100, show_default=True, help="Most protected data of one task, when there are many."
)
@click.option("--detach", is_flag=True, help="Return as soon as the deal is made.")
@click.option("--timeout", type=float, help="Stop waiting after so many seconds.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for the result's files.")
@options
def run(
    session: Session,
    app: str,
    protected_data: tuple[str, ...],
    data_price: str,
    budget: str | None,
    trust: int,
    per_task: int,
    detach: bool,
    timeout: float | None,
    output: Path | None,
    asked: Asked,
) -> None:
    """Run APP (an address, or the folder it was deployed from) in an enclave, wait, open the result."""
    from cloister.errors import InputError

    _check_output(output)
    with session.progress() as listener:
        protector = session.protector(listener)
        app = deployed_app(protector, app)
        if len(protected_data) > 1:
            if budget is not None:
                raise InputError(
                    "a budget is for one run, not for a bulk request",
                    hint="say what a task may cost: --app-price and --workerpool-price",
                )
            runs = _run_bulk(protector, app, protected_data, per_task, asked)
        else:
            (data,) = protected_data or (None,)
            started = protector.process_protected_data(
                data,
                app=app,
                data_max_price=data_price,
                budget=budget,
                trust=trust,
                wait=False,
                **asked.keywords(),
            )
            runs = [started]
        if not detach:
            for each in runs:
                each.wait(timeout)
        opened = [] if detach else [_opened(each, output, many=len(protected_data) > 1) for each in runs]
    _show(session, protector, runs, opened, many=len(protected_data) > 1)
    if any(each["failure"] for each in opened):
        raise SystemExit(APP_FAILED)


def _check_output(output: Path | None) -> None:
    """Refuse a folder whose files would become part of an app's bundle, and public with its next deployment."""
    from cloister.errors import InputError
    from cloister.generator.settings import SETTINGS_NAME
    from cloister.generator.sources import OUTSIDE

    if output is None:
        return
    target = output.resolve()
    for project in target.parents:
        inside = target.relative_to(project).parts[0]
        if (project / SETTINGS_NAME).is_file() and inside not in OUTSIDE and not inside.startswith("."):
            raise InputError(
                f"results in {output} would be part of the app in {project}, and public when it is deployed again",
                hint="-o output (the app's output folder stays outside), or a folder elsewhere",
            )


def _run_bulk(protector: DataProtector, app: str, data: tuple[str, ...], per_task: int, asked: Asked) -> list[Run]:
    """One request for all of them, each under a grant for bulk.

    Raises:
        Denied: one of them is not granted for bulk.
    """
    from cloister.errors import Denied

    who = protector.connection.address
    grants = []
    for address in dict.fromkeys(data):
        grant = next(protector.get_granted_access(protected_data=address, app=app, user=who, bulk_only=True), None)
        if grant is None:
            raise Denied(
                f"no bulk access to {address} is granted to {who} for app {app}",
                hint=f"its owner grants it with: cloister access grant {address} --app {app} --bulk",
            )
        grants.append(grant)
    request = protector.prepare_bulk_request(grants, app=app, max_protected_data_per_task=per_task, **asked.keywords())
    return protector.process_bulk_request(request)


def _opened(run: Run, output: Path | None, *, many: bool) -> dict[str, Any]:
    """A run's result: its files, where they were saved, and why the app failed, where it did."""
    result = run.result
    folder = None if output is None else output / f"task-{run.index}" if many else output
    failure: Failure | None = result.failure()
    return {
        "files": result.names(),
        "saved": [] if folder is None else [str(path) for path in result.save(folder)],
        "items": [item.to_json() for item in result.bulk_items()] if many else None,
        "failure": None if failure is None else failure.to_json(),
    }


def _show(
    session: Session, protector: DataProtector, runs: list[Run], opened: list[dict[str, Any]], *, many: bool
) -> None:
    kind = protector.connection.network.enclave_kind
    empty: dict[str, Any] = {"files": [], "saved": [], "items": None, "failure": None}
    tasks = [each.to_json() | (opened[position] if opened else empty) for position, each in enumerate(runs)]
    for task in tasks:
        if task["items"] is None:
            del task["items"]

    def draw() -> None:
        from cloister.cli.render import enclave_notice

        for task, each in zip(tasks, runs, strict=True):
            _draw(protector, task, each, waited=bool(opened))
        enclave_notice(kind)

    if many:
        session.show({"tasks": tasks, "enclave": kind}, draw)
    else:
        session.show(tasks[0] | {"enclave": kind}, draw)


def _draw(protector: DataProtector, task: dict[str, Any], run: Run, *, waited: bool) -> None:
    from cloister.cli.render import facts, table
    from cloister.cli.timeline import draw_timeline

    if waited:
        draw_timeline(protector.tasks.debug(run.task_id).events)
    facts(
        [
            ("task", run.task_id),
            ("deal", run.deal_id),
            *((("files", ", ".join(task["files"])),) if task["files"] else ()),
            *((("saved", ", ".join(task["saved"])),) if task["saved"] else ()),
            *((("next", f"cloister task watch {run.task_id} --deal {run.deal_id}"),) if not waited else ()),
        ]
    )
    if task.get("items"):
        rows = [(i["index"], i["protected_data"], "ok" if i["ok"] else f"failed: {i['cause']}") for i in task["items"]]
        table("protected data", ("item", "address", "outcome"), rows)
    if task["failure"]:
        from cloister.cli.timeline import draw_failure

        draw_failure(task["failure"]["cause"], task["failure"]["message"])
