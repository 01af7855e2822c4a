"""``cloister iapp build`` and ``lock``: a folder becomes a bundle; what it depends on is locked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session, jsonable, options

if TYPE_CHECKING:
    from cloister.generator.leaks import Leak

_SHOWN = 20


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Where the bundle goes.  [default: FOLDER/build/<name>.bundle]",
)
@options
def build(session: Session, folder: Path, output: Path | None) -> None:
    """Build FOLDER (iapp.toml, code, requirements.txt) into one bundle. Same source, same digest."""
    from cloister.generator.bundle import build_bundle
    from cloister.generator.leaks import find_leaks

    built = build_bundle(folder, output, tell=say)
    leaks = find_leaks(folder)
    warn_of_leaks(leaks)

    def draw() -> None:
        from cloister.cli.render import facts
        from cloister.generator.archive import show_size

        facts(
            [
                ("bundle", built.path),
                ("digest", built.digest),
                ("size", show_size(built.size)),
                ("runtime", built.manifest.runtime),
            ]
        )

    session.show(
        {
            "path": str(built.path),
            "digest": built.digest,
            "size": built.size,
            "manifest": built.manifest.to_json(),
            "leaks": jsonable(list(leaks)),
        },
        draw,
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@options
def lock(session: Session, folder: Path) -> None:
    """Lock what FOLDER depends on: exact versions with hashes, from requirements.in (Python) or package.json (Node)."""
    from cloister.generator.locking import lock_folder

    locked = lock_folder(folder)

    def draw() -> None:
        click.echo(
            f"{'wrote' if locked.changed else 'nothing changed in'} {locked.path}: {len(locked.packages)} packages"
        )
        for package in locked.packages:
            click.echo(f"  {package}")

    session.show({"path": str(locked.path), "packages": list(locked.packages), "changed": locked.changed}, draw)


def say(line: str) -> None:
    """Tell people something by the way."""
    click.echo(line, err=True)


def warn_of_leaks(leaks: Sequence[Leak]) -> None:
    """Warn loudly, on stderr, of what looks like secrets in the source; the values are not shown."""
    if not leaks:
        return
    click.secho(
        f"warning: {len(leaks)} secrets in the source, as it looks; a bundle is public", fg="red", bold=True, err=True
    )
    for leak in leaks[:_SHOWN]:
        where = f"{leak.path}:{leak.line}" if leak.line else leak.path
        click.secho(f"  {where}: {leak.kind}", fg="yellow", err=True)
    if len(leaks) > _SHOWN:
        click.echo(f"  and {len(leaks) - _SHOWN} more", err=True)
    click.echo(
        "hint:  give it to the app as its app secret or a requester secret; a line marked not-a-secret is passed over",
        err=True,
    )
