"""``cloister result``: open what a task made."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cloister.cli.session import Session, options


@click.group()
def result() -> None:
    """Open a task's result."""


@result.command("open")
@click.argument("task_id")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for the files.")
@click.option("--cat", metavar="NAME", help="Print one file instead.")
@click.option(
    "--pem", type=click.Path(path_type=Path), help="RSA private key file, for a result sealed as iExec's clients ask."
)
@options
def open_(session: Session, task_id: str, output: Path | None, cat: str | None, pem: Path | None) -> None:
    """Download the result of TASK_ID, open it with the wallet's key (a plain one needs none), list or save its files."""
    from cloister.errors import NotFound

    if pem is not None and not pem.is_file():
        raise NotFound(f"no key file at {pem}", hint="a PEM file: -----BEGIN PRIVATE KEY-----")
    with session.progress() as listener:
        protector = session.protector(listener, needs_wallet=False)
        opened = protector.get_result_from_completed_task(
            task_id, pem_private_key=None if pem is None else pem.read_text()
        )
    if cat is not None:
        sys.stdout.buffer.write(opened.read(cat))
        return
    saved = [] if output is None else opened.save(output)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("files", ", ".join(opened.names())),
                ("travelled", "encrypted" if opened.encrypted else "in the open"),
                *((("saved", ", ".join(str(path) for path in saved)),) if saved else ()),
            ]
        )

    value = {
        "task_id": task_id,
        "files": opened.names(),
        "encrypted": opened.encrypted,
        "saved": [str(path) for path in saved],
    }
    session.show(value, draw)
