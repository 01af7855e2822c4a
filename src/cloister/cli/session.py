"""What every command needs: which network, which wallet, people or machine, and how progress is shown."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from cloister.sdk.data_protector import DataProtector
    from cloister.sdk.progress import Progress

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Session:
    """The options shared by all commands."""

    network: str
    wallet: str | None
    as_json: bool

    def protector(
        self, on_status: Callable[[Progress], None] | None = None, *, needs_wallet: bool = True
    ) -> DataProtector:
        """Connect.

        Raises:
            InputError: ``needs_wallet`` and none was named.
        """
        from cloister.sdk.data_protector import DataProtector
        from cloister.sdk.home import LOCAL
        from cloister.sdk.progress import silent
        from cloister.sdk.wallet import WALLET_VARIABLE, Wallet

        wallet = None
        if needs_wallet or self.wallet or os.environ.get(WALLET_VARIABLE):
            wallet = Wallet.named(self.wallet, LOCAL if "://" in self.network else self.network)
        return DataProtector.connect(self.network, wallet=wallet, on_status=on_status or silent)

    def show(self, value: object, render: Callable[[], None]) -> None:
        """Print ``value`` as JSON for machines, or let ``render`` draw it for people."""
        if self.as_json:
            click.echo(json.dumps(value, default=str))
        else:
            render()

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """Show steps and bars on a terminal's stderr; JSON lines on stderr with ``--json``."""
        from cloister.cli.render import StepDisplay

        if self.as_json:

            def as_line(progress: Progress) -> None:
                if progress.done is None:
                    line: dict[str, object] = {
                        "step": progress.step,
                        "finished": progress.finished,
                        "detail": progress.detail,
                    }
                    if progress.fraction is not None:
                        line["fraction"] = progress.fraction
                    click.echo(json.dumps(line), err=True)

            yield as_line
            return
        with StepDisplay() as display:
            yield display.update


def party(session: Session, who: str | None) -> str | None:
    """An address, or the address of a demo account named by its role on a local network."""
    if who is None or who.startswith("0x"):
        return who
    from cloister.sdk.home import LOCAL
    from cloister.sdk.wallet import Wallet

    return Wallet.demo(who, LOCAL if "://" in session.network else session.network).address


def deployed_app(protector: DataProtector, given: str) -> str:
    """An app's address; for a project's folder that of the app that was deployed from it last, on this network.

    Raises:
        InputError: neither an address nor a folder. NotFound: nothing was deployed from there.
    """
    from cloister.errors import InputError, NotFound
    from cloister.generator.deployments import deployments_on

    if given.startswith("0x"):
        return given
    folder = Path(given)
    if not folder.is_dir():
        raise InputError(
            f"{given} is neither an address nor a folder", hint="an app is 0x… or the folder it was deployed from"
        )
    found = deployments_on(folder, protector.connection)
    if not found:
        raise NotFound(f"nothing was deployed from {given} on this network", hint=f"cloister iapp deploy {given}")
    return max(enumerate(found), key=lambda item: (item[1].deployed_at, item[0]))[1].address


def options(command: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Add ``--network``, ``--as`` and ``--json`` and hand the command a :class:`Session`."""

    @click.option(
        "--network",
        "-n",
        default=lambda: os.environ.get("CLOISTER_NETWORK", "local"),
        help="Name or URL of the network.  [default: local]",
    )
    @click.option(
        "--as",
        "wallet",
        metavar="WHO",
        help="A demo account's role (hospital, company, …) or a key file.  [env: CLOISTER_WALLET]",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    @functools.wraps(command)
    def wrapped(network: str, wallet: str | None, as_json: bool, *args: P.args, **kwargs: P.kwargs) -> R:
        return command(Session(network, wallet, as_json), *args, **kwargs)

    return wrapped  # type: ignore[return-value]  # click passes its options by keyword


def jsonable(things: list[Any]) -> list[Any]:
    """Each thing's own JSON."""
    return [thing.to_json() for thing in things]
