"""Entry point of ``cloister``: finds the command, and turns every error into a message, a hint and an exit code."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from cloister.cli.lazy import LazyCommands
from cloister.errors import CloisterError, LocalError
from cloister.version import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("cloister.cli.up:up", "Start a whole network on this machine."),
    "down": ("cloister.cli.up:down", "Stop the network that runs here."),
    "status": ("cloister.cli.up:status", "Tell whether the network is up and well."),
    "demo": ("cloister.cli.demo:demo", "Run the hospital demo on a network of its own."),
    "data": ("cloister.cli.data:data", "Protect data, list it, hand it over."),
    "access": ("cloister.cli.access:access", "Grant, list and revoke access to protected data."),
    "iapp": ("cloister.cli.iapp:iapp", "Make, test, deploy, run and watch iApps."),
    "run": ("cloister.cli.iapp.run:run", "Run an app on protected data and open the result."),
    "bulk": ("cloister.cli.bulk:bulk", "Run an app on many protected data at once."),
    "task": ("cloister.cli.task:task", "Watch tasks, read logs, claim late ones."),
    "result": ("cloister.cli.result:result", "Open a task's result."),
    "order": ("cloister.cli.order:order", "Look into the order books, cancel orders."),
    "account": ("cloister.cli.account:account", "Balances, deposits, withdrawals."),
    "network": ("cloister.cli.network:network", "Addresses and URLs of a network."),
    "policy": ("cloister.cli.policy:policy", "Say which enclaves may use data, and why one may or not."),
    "evidence": ("cloister.cli.evidence:evidence", "Read what enclave hardware signed."),
    "receipt": ("cloister.cli.receipt:receipt", "Check a receipt offline."),
    "collateral": ("cloister.cli.collateral:collateral", "What vendors say of their platforms: show, import, export."),
    "doctor": ("cloister.cli.doctor:doctor", "Tell what this machine can do, and what to install."),
    "vm": ("cloister.cli.vm:vm", "Build and measure the virtual machine that is an enclave."),
    "serve": ("cloister.cli.serve:serve", "Run one service by itself."),
}
"""Verb or noun -> (where it lives, one line)."""


@click.group(
    cls=LazyCommands,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="cloister")
def cli() -> None:
    """Compute on data that nobody may see.

    Start with "cloister up" in one terminal and "cloister demo" in another. Every command takes --json.
    """


def _wants_json(arguments: list[str]) -> bool:
    return "--json" in arguments


def _fail(error: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": error}), err=True)
        return
    click.secho(f"error: {error['message']}", fg="red", err=True)
    if "part" in error:
        click.echo(f"part:  {error['part']}", err=True)
    if error["hint"]:
        click.echo(f"hint:  {error['hint']}", err=True)


def _record_crash(error: Exception) -> str:
    """Keep an unexpected error's traceback for a bug report, away from the user's screen."""
    import traceback

    from cloister.sdk.home import home_folder

    path = home_folder() / "crash.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        traceback.print_exception(error, file=file)
    return str(path)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0, or the error's exit code (see ``cloister.errors``)."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = _wants_json(given)
    try:
        code = cli.main(args=given, prog_name="cloister", standalone_mode=False)
    except CloisterError as error:
        part = {} if error.part is None else {"part": error.part}
        _fail({"code": error.code, "message": error.message, "hint": error.hint, **part}, as_json=as_json)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"{context.command_path} --help" if context is not None else None
        _fail({"code": "usage", "message": error.format_message(), "hint": hint}, as_json=as_json)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nobody wants the rest
        sys.exit(141)
    except Exception as error:  # noqa: BLE001  (the last seam: a user never sees a traceback)
        path = _record_crash(error)
        _fail(
            {
                "code": "internal",
                "message": f"this is a bug in cloister: {type(error).__name__}",
                "hint": f"details in {path}",
            },
            as_json=as_json,
        )
        sys.exit(LocalError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
