"""``cloister iapp logs``: what an iApp printed, where that may be read."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.sdk.data_protector import DataProtector

STREAMS = ("stdout", "stderr")


@click.command()
@click.argument("task_id")
@options
def logs(session: Session, task_id: str) -> None:
    """Print what the iApp of a task wrote: from the sealed result where its data's owners allow that, else from the
    scheduler, which has the logs of runs without anybody's secrets."""
    from cloister.errors import NotFound

    found, withheld = read_logs(session.protector(), task_id)
    if not found:
        raise NotFound(f"no logs of task {task_id}: {withheld}", hint=f"cloister iapp debug {task_id}")
    session.show(found, lambda: draw_logs(found))


def read_logs(protector: DataProtector, task_id: str) -> tuple[list[dict[str, Any]], str | None]:
    """What the iApp printed, each with where it was read; or nothing, and why."""
    from cloister.errors import CloisterError

    if protector.connection.wallet is None:
        return [], "only the task's requester gets logs: add --as"
    with suppress(CloisterError):
        result = protector.tasks.result(task_id)
        if set(result.names()) & {f"{name}.txt" for name in STREAMS}:
            streams = {name: result.read(f"{name}.txt").decode(errors="replace") for name in STREAMS}
            return [{"from": "the sealed result" if result.encrypted else "the result", **streams}], None
    try:
        entries = protector.tasks.logs(task_id)
    except CloisterError as error:
        return [], error.message + (f" ({error.hint})" if error.hint else "")
    return [
        {"from": f"worker {entry.worker}", "stdout": entry.stdout, "stderr": entry.stderr} for entry in entries
    ], None


def draw_logs(found: list[dict[str, Any]]) -> None:
    """Each stream under its name."""
    for entry in found:
        click.secho(entry["from"], bold=True)
        for name in STREAMS:
            if entry[name]:
                click.secho(f"--- {name}", dim=True)
                click.echo(entry[name].rstrip("\n"))
