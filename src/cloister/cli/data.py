"""``cloister data``: protect, list, show, transfer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session, jsonable, options, party

if TYPE_CHECKING:
    from cloister.sdk.history import History
    from cloister.sdk.protection import ProtectedData

OBJECT_CAP = 16 << 20
"""Largest JSON file that is read as an object, bytes."""


@click.group()
def data() -> None:
    """Protect data, list it, hand it over."""


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--table", is_flag=True, help="Read a .csv or .parquet file as a table.")
@click.option("--object", "as_object", is_flag=True, help="Read a .json file as an object of named values.")
@click.option("--name", help="Public name on chain.  [default: the file's name]")
@click.option(
    "--format",
    "content_format",
    type=click.Choice(["AES256_GCM_HKDF_1MB", "AES256_CBC"]),
    default="AES256_GCM_HKDF_1MB",
    show_default=True,
    help="AES256_CBC is what iExec's own workers open.",
)
@options
def protect(session: Session, path: Path, table: bool, as_object: bool, name: str | None, content_format: str) -> None:
    """Encrypt a file or folder, store it, mint it, give its key to the SMS.

    With --table a CSV or Parquet file is read as a table first, so that apps find Parquet whatever the source was. With
    --object apps find the members of a JSON object by name, as in protect_data({...}). If a step fails, the same command
    goes on where it stopped.
    """
    from cloister.errors import InputError, NotFound

    if table and as_object:
        raise InputError("--table and --object exclude each other", hint="a table is .csv or .parquet, an object .json")

    if not path.exists():
        raise NotFound(f"no file or folder at {path}", hint="check the path")
    with session.progress() as listener:
        protected = session.protector(listener).protect_data(
            _object(path) if as_object else _table(path) if table else path,
            name=name or path.name,
            content_format=content_format,
        )
    session.show(protected.to_json(), lambda: _draw(protected))


@data.command("list")
@click.option("--owner", help="Only data of this address.")
@click.option("--mine", is_flag=True, help="Only data of the wallet.")
@options
def list_(session: Session, owner: str | None, mine: bool) -> None:
    """List protected data, newest first."""
    from cloister.cli.render import table

    protector = session.protector(needs_wallet=mine)
    found = protector.get_protected_data(owner=protector.connection.address if mine else party(session, owner))
    session.show(
        jsonable(found),
        lambda: table("protected data", ("address", "name", "owner"), [(d.address, d.name, d.owner) for d in found]),
    )


@data.command()
@click.argument("address")
@options
def show(session: Session, address: str) -> None:
    """Show one protected data: owner, schema, where its ciphertext lies."""
    from cloister.errors import NotFound
    from cloister.protocol.codec import Address

    found = session.protector(needs_wallet=False).get_protected_data(address=Address(address))
    if not found:
        raise NotFound(f"no protected data at {address}", hint="cloister data list")
    session.show(found[0].to_json(), lambda: _draw(found[0]))


@data.command()
@click.argument("address")
@click.option(
    "--quick",
    is_flag=True,
    help="Do not read the whole log: the SMS lists the entries for the data's owner, and each is proven.",
)
@options
def history(session: Session, address: str, quick: bool) -> None:
    """List every release and refusal of the data at ADDRESS, proven by the SMS's transparency log.

    The log's head must be signed by the SMS that the hub names and continue the head that this machine saw last: a log that
    shrank, or tells another story, is an error.
    """
    from cloister.protocol.codec import Address

    found = session.protector(needs_wallet=quick).get_history(Address(address), complete=not quick)
    session.show(found.to_json(), lambda: _draw_history(found))


@data.command()
@click.argument("address")
@click.argument("new_owner")
@options
def transfer(session: Session, address: str, new_owner: str) -> None:
    """Give the data at ADDRESS to NEW_OWNER. Grants of the former owner are void from then on."""
    transaction = session.protector().transfer_ownership(address, str(party(session, new_owner)))
    session.show(
        {"address": address, "to": new_owner, "transaction": transaction},
        lambda: click.echo(f"{address} now belongs to {new_owner}"),
    )


def _object(path: Path) -> dict[str, object]:
    """The same object that a rehearsal packs from this file."""
    from cloister.errors import TooLarge
    from cloister.generator.rehearsal.data import load_object

    try:
        return load_object(path, cap=OBJECT_CAP)
    except TooLarge as error:
        raise TooLarge(error.message, hint="protect it as a file: without --object") from error


def _table(path: Path) -> object:
    """Read a table by the file's ending."""
    from cloister.errors import ConfigurationError, InputError

    try:
        import pandas
    except ImportError as error:
        raise ConfigurationError("tables need pandas", hint="pip install 'cloister[dataframe]'") from error
    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if path.suffix not in readers:
        raise InputError(f"{path.name} is no table that can be read here", hint="a .csv or .parquet file")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name} cannot be read as a table: {str(error)[:200]}") from error


def _draw_history(found: History) -> None:
    from datetime import UTC, datetime

    from cloister.cli.render import table

    def when(seconds: int) -> str:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")

    rows = [
        (
            str(e.index),
            when(e.at),
            e.outcome,
            e.reason or "",
            e.requester or "",
            e.app or "",
            e.task_id,
            e.order_hash or "",
        )
        for e in found
    ]
    table(
        f"what became of {found.address}",
        ("entry", "when (UTC)", "outcome", "reason", "requester", "app", "task", "grant"),
        rows,
    )
    scope = "the whole log was read: there is no other" if found.complete else "as the SMS lists them, each proven"
    click.echo(f"{len(found)} of {found.head.size} entries; {scope}; root {found.head.root.hex()}")


def _draw(protected: ProtectedData) -> None:
    from cloister.cli.render import facts

    facts(
        [
            ("protected data", protected.address),
            ("name", protected.name),
            ("owner", protected.owner),
            ("schema", protected.schema),
            ("ciphertext", protected.multiaddr),
            ("checksum", protected.checksum),
        ]
    )
