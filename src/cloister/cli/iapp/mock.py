"""``cloister iapp mock``: invented protected data for rehearsals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.generator.mock import Mock, Wish


@click.command()
@click.argument("source", required=False)
@click.option("--schema", type=click.Path(path_type=Path), help="JSON file with a schema, as it stands on the chain.")
@click.option("--field", "fields", multiple=True, metavar="NAME=TYPE", help="One entry, such as user.email=string.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME:COLUMN=TYPE,…",
    help="A table, such as patients:age=int64,sex=string.",
)
@click.option(
    "--rows", type=click.IntRange(min=0, max=10_000_000), help="Rows of tables.  [default: the real one's; 100]"
)
@click.option("--seed", default=0, show_default=True, help="Another seed, other values; the same seed, the same mock.")
@click.option("--copies", type=click.IntRange(1, 100), default=1, show_default=True, help="So many mocks: a bulk.")
@click.option(
    "--keep-categories",
    is_flag=True,
    help="Draw the values of table columns that hold at most 20 different ones from the REAL ones.",
)
@click.option("--no-header", is_flag=True, help="The first line of a CSV is data.")
@click.option("--name", help="Name of the mock.  [default: the real one's; data]")
@click.option(
    "--project", "-p", type=click.Path(path_type=Path), default=Path(), help="The iApp's folder.  [default: this one]"
)
@click.option("--use", is_flag=True, help="Have mock/run.toml name it, even if that names other data now.")
@click.option("--force", is_flag=True, help="Write over a mock that is there.")
@options
def mock(
    session: Session,
    source: str | None,
    schema: Path | None,
    fields: tuple[str, ...],
    tables: tuple[str, ...],
    rows: int | None,
    seed: int,
    copies: int,
    keep_categories: bool,
    no_header: bool,
    name: str | None,
    project: Path,
    use: bool,
    force: bool,
) -> None:
    """Make mock protected data in mock/: names, types and shapes as told or as in SOURCE, values invented.

    SOURCE is a file or folder (JSON, CSV, Parquet, packed protected data, anything) or the address of protected data,
    whose public schema is read from the network. Of a real file only names, types and row counts are taken, unless
    --keep-categories says otherwise. mock/run.toml names the mock when it names no data yet.
    """
    from cloister.errors import NotFound
    from cloister.generator.mock import Wish, write_mock
    from cloister.generator.mock.run import name_in_run
    from cloister.generator.rehearsal.settings import MOCK_FOLDER
    from cloister.generator.settings import SETTINGS_NAME

    if not (project / SETTINGS_NAME).is_file():
        raise NotFound(f"no {SETTINGS_NAME} in {project}", hint="run it in an iApp's folder, or name it with --project")
    wish = Wish(seed, rows, keep_categories, not no_header)
    folder = project / MOCK_FOLDER
    shape = _shape(session, schema, fields, tables, source)
    made, written = [], []
    for copy in range(copies):
        part = _make(shape, source, name, replace(wish, seed=seed + copy))
        if copies > 1:
            part = _numbered(part, copy + 1)
        _check_source(part, folder, source)
        made.append(part)
    for part in made:
        written += write_mock(part, folder, replace=force)
    named = name_in_run(project, [part.name for part in made], replace=use)

    def draw() -> None:
        for path in written:
            click.echo(f"{path}  {path.stat().st_size} bytes")
        if keep_categories:
            click.secho("columns of few different values hold REAL values: --keep-categories", fg="yellow", err=True)
        if named:
            click.echo("mock/run.toml names it; run: cloister iapp test")
        else:
            click.echo(
                f"mock/run.toml names other data; --use replaces it, or: cloister iapp test --data {made[0].name}"
            )

    value = {
        "name": made[0].name,
        "names": [part.name for part in made],
        "files": [str(path) for path in written],
        "named_in_run_toml": named,
    }
    session.show(value, draw)


def _shape(
    session: Session, schema: Path | None, fields: tuple[str, ...], tables: tuple[str, ...], source: str | None
) -> dict[str, Any] | None:
    """The schema to invent for; None when SOURCE is a file or folder."""
    from cloister.datasets.schema import parse_schema
    from cloister.errors import InputError, NotFound
    from cloister.generator.mock import parse_fields
    from cloister.generator.mock.tables import parse_columns

    given = [what for what, there in (("SOURCE", source), ("--schema", schema), ("--field", fields or tables)) if there]
    if len(given) != 1:
        raise InputError(
            "say what to mock in one way: SOURCE, --schema, or --field and --table",
            hint="cloister iapp mock --field email=string --field age=i128",
        )
    if schema is not None:
        if not schema.is_file():
            raise NotFound(f"there is no schema file {schema}")
        return parse_schema(schema.read_text("utf-8", errors="replace"))
    if fields or tables:
        pairs = []
        for table in tables:
            name, _, columns = table.partition(":")
            pairs.append((name, parse_columns(columns)))
        return parse_fields(fields, tuple(pairs))
    if source is not None and source.startswith("0x") and not Path(source).exists():
        return _public_schema(session, source)
    return None


def _public_schema(session: Session, address: str) -> dict[str, Any]:
    """The schema of protected data on the network."""
    from cloister.errors import NotFound
    from cloister.protocol.codec import Address

    found = session.protector(needs_wallet=False).get_protected_data(address=Address(address))
    if not found:
        raise NotFound(f"no protected data at {address}", hint="cloister data list")
    return dict(found[0].schema)


def _make(shape: dict[str, Any] | None, source: str | None, name: str | None, wish: Wish) -> Mock:
    from cloister.generator.mock import Mock, mock_path, mock_schema

    if shape is not None:
        return mock_schema(shape, name or "data", wish)
    made = mock_path(Path(source or ""), wish)
    if name is None:
        return made
    target = name if Path(made.name).suffix == Path(name).suffix else name + Path(made.name).suffix
    return Mock(target, {target + path.removeprefix(made.name): content for path, content in made.files.items()})


def _numbered(mock: Mock, number: int) -> Mock:
    """The same under a name with a number."""
    from cloister.generator.mock import Mock

    path = Path(mock.name)
    name = f"{path.stem}-{number}{path.suffix}"
    return Mock(name, {name + inner.removeprefix(mock.name): content for inner, content in mock.files.items()})


def _check_source(mock: Mock, folder: Path, source: str | None) -> None:
    """A mock never takes the place of what it was made from."""
    from cloister.errors import Conflict

    if source is None or not Path(source).exists():
        return
    real, target = Path(source).resolve(), (folder / mock.name).resolve()
    if target == real or target in real.parents or real in target.parents:
        raise Conflict(
            f"the mock would lie where {source} lies", hint="real data does not belong into mock/; or --name it"
        )
