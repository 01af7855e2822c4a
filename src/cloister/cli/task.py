"""``cloister task``: status, watch, logs, claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.sdk.tasks import TaskView


@click.group()
def task() -> None:
    """Watch tasks, read logs, claim late ones."""


@task.command()
@click.argument("task_id")
@click.option("--deal", "deal_id", help="The deal's id; needed before the task is initialized.")
@options
def status(session: Session, task_id: str, deal_id: str | None) -> None:
    """Show where a task stands."""
    view = session.protector(needs_wallet=False).tasks.status(task_id, deal_id=deal_id)
    session.show(view.to_json(), lambda: _draw(view))


@task.command()
@click.argument("task_id")
@click.option("--deal", "deal_id", help="The deal's id; needed before the task is initialized.")
@click.option("--timeout", type=float, help="Stop after so many seconds.")
@options
def watch(session: Session, task_id: str, deal_id: str | None, timeout: float | None) -> None:
    """Follow a task until it ended; one line per change."""
    import json

    for view in session.protector(needs_wallet=False).tasks.watch(task_id, deal_id=deal_id, timeout=timeout):
        if session.as_json:
            click.echo(json.dumps(view.to_json()))
        else:
            click.echo(f"{view.status:<10} {view.stage or ''}{'  ' + view.detail if view.detail else ''}{_said(view)}")


def _said(view: TaskView) -> str:
    """What the app says of its progress."""
    if view.progress is None:
        return ""
    share = "" if view.progress.fraction is None else f"{view.progress.fraction:.0%} "
    return f"  {share}{view.progress.message}"


@task.command()
@click.argument("task_id")
@options
def logs(session: Session, task_id: str) -> None:
    """Print what the app wrote; only the task's requester gets it."""
    from cloister.cli.iapp.logs import draw_logs

    entries = session.protector().tasks.logs(task_id)

    def draw() -> None:
        draw_logs([{"from": f"worker {e.worker}", "stdout": e.stdout, "stderr": e.stderr} for e in entries])

    session.show([{"worker": e.worker, "stdout": e.stdout, "stderr": e.stderr} for e in entries], draw)


@task.command()
@click.argument("task_id")
@click.option("--deal", "deal_id", help="The deal's id; needed when the task was never initialized.")
@options
def claim(session: Session, task_id: str, deal_id: str | None) -> None:
    """Take the money of a late task back."""
    transaction = session.protector().tasks.claim(task_id, deal_id=deal_id)
    session.show({"task_id": task_id, "transaction": transaction}, lambda: click.echo(f"claimed: {transaction}"))


def _draw(view: TaskView) -> None:
    from cloister.cli.render import facts

    facts(
        [
            ("task", view.task_id),
            ("deal", view.deal_id),
            ("status", view.status),
            ("stage", view.stage),
            ("worker", view.work),
            ("cause", view.detail),
            ("result", view.location),
        ]
    )
