"""``cloister bulk``: one request for many protected data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cloister.cli.requests import Asked, request_options
from cloister.cli.session import Session, deployed_app, options

REQUEST_CAP = 64 * 1024


@click.group()
def bulk() -> None:
    """Run an app on many protected data with one signed request."""


@bulk.command()
@click.argument("app")
@click.option("--grant", "grants", multiple=True, metavar="HASH", help="Grant to use; may be repeated.  [default: all]")
@click.option("--owner", help="With no --grant: only data of this owner, an address or a demo account.")
@click.option("--per-task", default=100, show_default=True, help="Most protected data of one task.")
@request_options
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="File for the signed request.")
@options
def prepare(
    session: Session,
    app: str,
    grants: tuple[str, ...],
    owner: str | None,
    per_task: int,
    output: Path,
    asked: Asked,
) -> None:
    """Sign one request for APP on all data granted to you with --bulk, and write it to a file. Nothing is paid yet."""
    with session.progress() as listener:
        protector = session.protector(listener)
        app = deployed_app(protector, app)
        request = protector.prepare_bulk_request(
            _chosen(session, protector, app, grants, owner),
            app=app,
            max_protected_data_per_task=per_task,
            **asked.keywords(),
        )
    output.write_text(json.dumps(request.to_json(), indent=1) + "\n")

    def draw() -> None:
        from cloister.cli.render import facts

        facts([("request", output), ("tasks", request.slices), ("next", f"cloister bulk run {output}")])

    session.show({"file": str(output), "tasks": request.slices, "request": request.to_json()}, draw)


def _chosen(session: Session, protector: Any, app: str, grants: tuple[str, ...], owner: str | None) -> list[Any]:
    """The grants that were named, or every open bulk grant for the app and this wallet, one for each data."""
    from cloister.cli.session import party
    from cloister.errors import NotFound
    from cloister.protocol.orders import OrderKind

    if grants:
        return [protector.orders.show(OrderKind.DATASET, grant).order for grant in grants]
    found: dict[str, Any] = {}
    records = protector.orders.list(
        OrderKind.DATASET,
        dataset=None if owner else "any",
        dataset_owner=party(session, owner),
        app=app,
        requester=protector.connection.address,
        bulk_only=True,
    )
    for record in records:
        found.setdefault(record.order.dataset, record.order)
    if not found:
        raise NotFound(
            f"no bulk access is granted to {protector.connection.address} for app {app}",
            hint="data owners grant it with: cloister access grant DATA --app APP --bulk",
        )
    return list(found.values())


@bulk.command("run")
@click.argument("request", type=click.Path(path_type=Path))
@click.option("--workerpool", help="Only this workerpool.")
@click.option("--detach", is_flag=True, help="Return as soon as the deals are made.")
@click.option("--timeout", type=float, help="Stop waiting after so many seconds.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for the results: one folder a task.")
@options
def run_(
    session: Session, request: Path, workerpool: str | None, detach: bool, timeout: float | None, output: Path | None
) -> None:
    """Make and pay the deals of the request in file REQUEST, wait, open the results. Repeating it pays nothing twice."""
    loaded = _load(request)
    with session.progress() as listener:
        protector = session.protector(listener)
        runs = protector.process_bulk_request(loaded, workerpool=workerpool, wait=not detach, timeout=timeout)
    tasks = []
    for each in runs:
        items = [] if detach else [item.to_json() for item in each.result.bulk_items()]
        saved = [] if detach or output is None else each.result.save(output / f"task-{each.index}")
        tasks.append(each.to_json() | {"index": each.index, "items": items, "saved": [str(path) for path in saved]})

    def draw() -> None:
        from cloister.cli.render import enclave_notice, table

        rows = [
            (item["index"], item["protected_data"], "ok" if item["ok"] else f"failed: {item['cause']}")
            for task in tasks
            for item in task["items"]
        ]
        table("tasks", ("slice", "task", "deal"), [(task["index"], task["task_id"], task["deal_id"]) for task in tasks])
        if rows:
            table("protected data", ("item", "address", "outcome"), rows)
        enclave_notice(protector.connection.network.enclave_kind)

    session.show({"tasks": tasks, "enclave": protector.connection.network.enclave_kind}, draw)


@bulk.command()
@click.argument("request", type=click.Path(path_type=Path))
@options
def show(session: Session, request: Path) -> None:
    """Tell where the request in file REQUEST stands."""
    loaded = _load(request)
    status = session.protector(needs_wallet=False).inspect_bulk_request(loaded)

    def draw() -> None:
        from cloister.cli.render import table

        rows = [
            (task.index, len(task.protected_data), task.status, "" if task.run is None else task.run.task_id)
            for task in status.tasks
        ]
        table(f"bulk request: {status.status}", ("slice", "data", "status", "task"), rows)

    session.show(status.to_json(), draw)


def _load(path: Path) -> Any:
    from cloister.errors import NotFound
    from cloister.protocol.codec import parse_json
    from cloister.sdk.bulk import BulkRequest

    if not path.is_file():
        raise NotFound(f"no bulk request at {path}", hint="cloister bulk prepare APP -o FILE")
    with path.open("rb") as file:
        return BulkRequest.parse(parse_json(file.read(REQUEST_CAP + 1), cap=REQUEST_CAP))
