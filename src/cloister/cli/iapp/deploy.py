"""``cloister iapp deploy``: from a folder to an app that is on offer."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.iapp.build import say, warn_of_leaks
from cloister.cli.session import Session, jsonable, options, party

if TYPE_CHECKING:
    from cloister.generator.leaks import Leak
    from cloister.sdk.apps import App
    from cloister.sdk.connection import Connection

PROMPT = "prompt"


@click.command()
@click.argument("source", type=click.Path(path_type=Path), default=Path())
@click.option("--name", help="Name on chain.  [default: the manifest's]")
@click.option("--price", default="0", show_default=True, help='Price of one run, such as "0.05 RLC".')
@click.option("--uses", type=click.IntRange(min=1), help="How many runs are offered.  [default: no limit]")
@click.option("--user", help="Only for this requester.")
@click.option(
    "--app-secret",
    metavar="@FILE|prompt",
    help="The secret that only the app's enclaves get: from a file, or asked for.",
)
@click.option("--no-publish", is_flag=True, help="Register only; offer it later with: cloister iapp publish.")
@click.option("--allow-secrets", is_flag=True, help="Deploy although the source holds what looks like secrets.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@options
def deploy(
    session: Session,
    source: Path,
    name: str | None,
    price: str,
    uses: int | None,
    user: str | None,
    app_secret: str | None,
    no_publish: bool,
    allow_secrets: bool,
    yes: bool,
) -> None:
    """Build, upload, register and offer SOURCE, a folder or a bundle; give it its secret.

    After a step that failed the same command goes on where it stopped: one app, one order, one secret.
    """
    from cloister.generator.deployments import Terms, deploy_bundle
    from cloister.protocol.units import INFINITE_VOLUME, parse_nrlc

    parse_nrlc(price)  # what is refused is refused before anything is built
    asks = sys.stdin.isatty() and not yes
    given = load_secret(app_secret)
    terms = None if no_publish else Terms(price, uses or INFINITE_VOLUME, party(session, user))
    protector = session.protector()
    folder = _project_of(source)
    leaks = () if not source.is_dir() else _check_leaks(source, asks=asks, allowed=allow_secrets)
    if asks and terms is not None:
        whom = terms.user or "anyone"
        click.confirm(
            f"offer it on network {session.network} at {price} a run to {whom}?", abort=True, default=True, err=True
        )
    bundle = _build(session, source) if source.is_dir() else source
    wants = given is None and folder is not None and _wants_secret(folder)
    if app_secret == PROMPT or (wants and asks and not _was_given(folder, bundle, protector.connection)):
        given = _ask_secret()  # before the display of steps begins to move

    told: list[str] = []  # shown when the display of steps has ended

    def secret(app: App) -> str | None:
        if given is None and wants and not protector.apps.has_secret(app.address):
            told.append(
                "warning: mock/run.toml says that the app uses an app secret, and it has none: --app-secret @FILE"
            )
        return given

    with session.progress() as listener:
        deployed = deploy_bundle(
            session.protector(listener).apps,
            protector.connection,
            bundle,
            folder=folder,
            name=name,
            secret=secret,
            terms=terms,
            tell=told.append,
            listener=listener,
        )
    for line in told:
        say(line)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("app", deployed.address),
                ("name", deployed.name),
                ("bundle", deployed.multiaddr),
                ("digest", deployed.checksum),
                ("secret", "given" if deployed.secret else "none"),
                ("offer", deployed.order_hash or f"none: cloister iapp publish {deployed.address}"),
                ("run it", f"cloister iapp run {deployed.address}"),
                ("on data", f"cloister access grant DATA --app {deployed.address}, then run with --data DATA"),
                ("prove it", f"cloister iapp verify {deployed.address} {source}"),
            ]
        )

    shown = {
        "address": deployed.address,
        "name": deployed.name,
        "owner": deployed.owner,
        "multiaddr": deployed.multiaddr,
        "checksum": deployed.checksum,
        "secret": deployed.secret,
        "order_hash": deployed.order_hash,
        "leaks": jsonable(list(leaks)),
    }
    session.show(shown, draw)


def _build(session: Session, folder: Path) -> Path:
    from cloister.generator.archive import show_size
    from cloister.generator.bundle import build_bundle
    from cloister.sdk.progress import Progress

    told: list[str] = []
    with session.progress() as listener:
        listener(Progress("BUILD_BUNDLE"))
        built = build_bundle(folder, tell=told.append)
        listener(Progress("BUILD_BUNDLE", finished=True, detail=show_size(built.size)))
    for line in told:
        say(line)
    return built.path


def _check_leaks(folder: Path, *, asks: bool, allowed: bool) -> Sequence[Leak]:
    from cloister.errors import Denied
    from cloister.generator.leaks import find_leaks

    leaks = find_leaks(folder)
    warn_of_leaks(leaks)
    if not leaks or allowed:
        return leaks
    if asks:
        click.confirm("what is uploaded can be read by anyone, for good. deploy all the same?", abort=True, err=True)
        return leaks
    first = leaks[0]
    raise Denied(
        f"the source holds what looks like {len(leaks)} secrets, the first in {first.path}:{first.line} ({first.kind})",
        hint="take them out, or --allow-secrets",
        code="secret-in-source",
    )


def load_secret(source: str | None) -> str | None:
    """Read ``@FILE``. None when there is none, or it is to be asked for.

    Raises:
        InputError: see ``read_secret``; or there is no terminal to ask on.
    """
    from cloister.cli.requests import read_secret
    from cloister.errors import InputError

    if source is None or source == PROMPT:
        if source == PROMPT and not sys.stdin.isatty():
            raise InputError("there is no terminal to ask for the app secret on", hint="--app-secret @FILE")
        return None
    return read_secret(source, what="the app secret", hint="--app-secret @FILE, or --app-secret prompt")


def _ask_secret() -> str | None:
    value: str = click.prompt(
        "the app's secret (nothing shows; empty for none)", hide_input=True, default="", show_default=False, err=True
    )
    return value or None


def _was_given(folder: Path | None, bundle: Path, connection: Connection) -> bool:
    """Whether the record says that this very bundle was deployed and has its secret: then nobody is asked again."""
    from cloister.generator.bundle import load_digest
    from cloister.generator.deployments import deployments_on

    if folder is None:
        return False
    digest = load_digest(bundle)
    return any(item.checksum == digest and item.secret for item in deployments_on(folder, connection))


def _wants_secret(folder: Path) -> bool:
    """Whether the mock of the project says that the app uses an app secret."""
    try:
        return "app_secret" in tomllib.loads((folder / "mock" / "run.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return False


def _project_of(source: Path) -> Path | None:
    """The project's folder: the source itself, or where a bundle was built."""
    from cloister.generator.settings import SETTINGS_NAME

    for folder in (source, source.absolute().parent.parent):
        if (folder / SETTINGS_NAME).is_file():
            return folder.resolve()
    return None
