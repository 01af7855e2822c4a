"""``cloister iapp verify``: prove that a deployed iApp is a given source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.iapp.build import say
from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.generator.verify import FileDifference, Verification

DIFFERENT = 76
"""Exit code: a digest does not prove what it must."""
_SHOWN = 30
_LIMITS = (
    "Not proved: that the code is good, and that an enclave ran it. Read the source for the one, "
    "and for the other the receipt of a task: cloister receipt verify."
)


@click.command()
@click.argument("address")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The deployed bundle as a file, where storage does not have it.",
)
@options
def verify(session: Session, address: str, folder: Path, bundle: Path | None) -> int:
    """Prove that the app at ADDRESS is the source in FOLDER, or say exactly what differs (exit code 76).

    FOLDER is built anew; its digest must be the checksum on chain. The deployed bundle is fetched only to name
    differences.
    """
    from cloister.generator.verify import verify_source

    protector = session.protector(needs_wallet=False)
    apps, network = protector.apps, protector.connection.network
    app = apps.show(address)

    def fetch() -> Iterator[bytes]:
        return apps.open_bundle(app.address) if bundle is None else _read(bundle)

    outcome = verify_source(folder, app.checksum, fetch, tell=say)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("app", f"{app.address} on chain {network.chain_id}"),
                ("checksum on chain", outcome.checksum),
                ("digest of source", outcome.digest),
            ]
        )
        if outcome.matches:
            click.secho(f"the deployed app is the source in {folder}, byte for byte", fg="green", bold=True)
            for note in outcome.notes:
                click.echo(note)
            click.echo(_LIMITS)
        else:
            click.secho(f"the deployed app is NOT the source in {folder}", fg="red", bold=True)
            _draw_differences(outcome)

    session.show({"address": app.address, "chain_id": network.chain_id} | outcome.to_json(), draw)
    return 0 if outcome.matches else DIFFERENT


def _draw_differences(outcome: Verification) -> None:
    from cloister.cli.render import table

    for note in outcome.notes:
        click.echo(note)
    if outcome.compiler_here != outcome.compiler_deployed:
        click.echo(
            f"libraries are compiled by {outcome.compiler_deployed or 'nothing'} in the deployed bundle, "
            f"by {outcome.compiler_here or 'nothing'} here"
        )
    if outcome.only_compiled_differ:
        click.echo(
            "all sources and libraries are the same; only compiled files differ, which may hold other code than their "
            f"sources: for a proof, verify with {outcome.compiler_deployed}"
        )
    if outcome.manifest_differences:
        rows = [(item.member, item.here, item.deployed) for item in outcome.manifest_differences]
        table("manifest", ("member", "here", "deployed"), rows)
    if outcome.libraries:
        table("libraries", ("package", "here", "deployed"), outcome.libraries)
    if outcome.files:
        table(
            "files",
            ("file", "where", "size here", "deployed", "digest here", "deployed"),
            [_row(item) for item in outcome.files[:_SHOWN]],
        )
        if len(outcome.files) > _SHOWN:
            click.echo(f"and {len(outcome.files) - _SHOWN} more: --json lists all")
    elif not outcome.manifest_differences and not outcome.notes:
        click.echo("every file is the same: the archive itself was written otherwise, by another version or by hand")


def _row(item: FileDifference) -> tuple[object, ...]:
    return item.name, item.where, item.size_here, item.size_deployed, item.digest_here, item.digest_deployed


def _read(path: Path) -> Iterator[bytes]:
    from cloister.errors import NotFound

    if not path.is_file():
        raise NotFound(f"no bundle at {path}")
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
