"""``cloister iapp debug``: what became of a task, and why."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from cloister.cli.iapp.logs import draw_logs, read_logs
from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.sdk.data_protector import DataProtector
    from cloister.sdk.debugging import TaskRecord
    from cloister.sdk.results import Failure


@click.command()
@click.argument("task_id")
@click.option("--deal", "deal_id", help="The deal's id; needed before the task is initialized.")
@options
def debug(session: Session, task_id: str, deal_id: str | None) -> None:
    """Tell all there is to know of a task: on chain, at the scheduler, on each worker, and its logs where allowed."""
    protector = session.protector(needs_wallet=False)
    record = protector.tasks.debug(task_id, deal_id=deal_id)
    logs, withheld = read_logs(protector, task_id)
    failure = _failure(protector, record)

    def draw() -> None:
        from cloister.cli.render import enclave_notice

        _draw_chain(record)
        _draw_work(record, failure)
        draw_logs(logs)
        if withheld:
            click.secho(f"no logs: {withheld}", dim=True)
        enclave_notice(protector.connection.network.enclave_kind)

    value = {"failure": None if failure is None else failure.to_json(), "logs": logs, "logs_withheld": withheld}
    session.show(record.to_json() | value, draw)


def _failure(protector: DataProtector, record: TaskRecord) -> Failure | None:
    """Why the app failed: the result says it to who can open it, the worker's word is for everybody."""
    from cloister.errors import CloisterError
    from cloister.sdk.results import Failure

    if protector.connection.wallet is not None and record.view.status == "COMPLETED":
        with suppress(CloisterError):
            return protector.tasks.result(record.view.task_id).failure()
    if record.cause is None:
        return None
    cause, _, message = record.cause.partition(": ")
    return Failure(cause, message or None)


def _draw_chain(record: TaskRecord) -> None:
    from datetime import UTC, datetime

    from cloister.cli.render import facts, rlc

    view = record.view
    facts(
        [
            ("task", f"{view.task_id}  ({view.index} of its deal)"),
            ("deal", view.deal_id),
            ("on chain", view.status),
            ("deadline", datetime.fromtimestamp(view.final_deadline, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")),
            ("app", f"{record.app}  {rlc(record.app_price)}"),
            (
                "data",
                "many (bulk)"
                if record.bulk
                else "none"
                if record.protected_data is None
                else f"{record.protected_data}  {rlc(record.data_price)}",
            ),
            ("workerpool", f"{record.workerpool}  {rlc(record.workerpool_price)}, category {record.category}"),
            ("requester", record.requester),
            ("result", view.location),
            ("scheduler", record.problem or record.scheduler_status),
        ]
    )


def _draw_work(record: TaskRecord, failure: Failure | None) -> None:
    from cloister.cli.timeline import draw_failure, draw_timeline

    draw_timeline(record.events)
    if failure is not None:
        draw_failure(failure.cause, failure.message)
    if record.exit_code is not None:
        click.echo(f"exit code {record.exit_code}")
