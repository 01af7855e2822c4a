"""``cloister doctor``: what this machine can do, and what to install."""

from __future__ import annotations

import json

import click

from cloister.errors import UnavailableError


class NothingRuns(UnavailableError):
    """No runtime can start an enclave on this machine."""

    code = "no-runtime"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def doctor(as_json: bool) -> None:
    """Tell what this machine can do: virtualization, confidential hardware, sandboxes, tools.

    Each thing is tried, not only looked for; that takes some seconds, needs no network and changes nothing. For what is
    missing the last column says what to install or set. Exits with 0 unless no enclave can be started here at all (75).
    """
    from cloister.worker.doctor import diagnose
    from cloister.worker.findings import State

    found = diagnose()
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        from rich.markup import escape

        from cloister.cli.render import table

        marks = {State.WORKS: "[green]✓[/]", State.ABSENT: "[dim]–[/]", State.BROKEN: "[red]✗[/]"}
        rows = [
            (f"{marks[each.state]} {each.what}", escape(each.seen), each.gives, escape(each.advice or ""))
            for each in found.findings
        ]
        columns = ["what", "here", "what it gives", "what to install or set"]
        table("This machine  (✓ works  ✗ is here and does not work  – is not here)", columns, rows)
        click.echo()
        table(
            "Runtimes: what enclaves run in (cloister up --enclave …)",
            ["runtime", "works", "why"],
            [(each.name, "yes" if each.works else "no", escape(each.why)) for each in found.runtimes],
        )
        click.echo()
        click.echo(f"strongest evidence here: {found.evidence or 'none'}")
        click.echo(f"  {found.worth}")
        click.echo("Evidence of every kind (tdx, sgx, snp, tpm) is verified on any machine.")
    if not any(each.works for each in found.runtimes):
        raise NothingRuns("no enclave can be started on this machine", hint="apt install bubblewrap, then try again")
