"""``cloister iapp build``: a folder becomes a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.cli.session import Session, options


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
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

    built = build_bundle(folder, output)

    def draw() -> None:
        from cloister.cli.render import facts

        facts([("bundle", built.path), ("digest", built.digest), ("size", f"{built.size} bytes")])

    session.show({"path": str(built.path), "digest": built.digest, "size": built.size}, draw)
