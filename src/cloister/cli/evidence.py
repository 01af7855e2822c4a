"""``cloister evidence``: what enclave hardware signed, from a file and offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from cloister.cli.session import Session, options

_Command = TypeVar("_Command", bound=Callable[..., object])
KINDS = ("tdx", "sgx", "snp", "snp-vtpm", "tpm", "simulated")
FILE = click.Path(path_type=Path)


@click.group()
def evidence() -> None:
    """Read what enclave hardware signed."""


def collateral_options(command: _Command) -> _Command:
    """Add what evidence is verified with."""
    for option in reversed(
        (
            click.option(
                "--collateral",
                "collateral",
                type=FILE,
                multiple=True,
                help="Intel's JSON, a bundle, a CRL; repeatable.",
            ),
            click.option(
                "--certificate",
                "certificates",
                type=FILE,
                multiple=True,
                help="SNP: VCEK or VLEK and its issuer, PEM or DER; repeatable.",
            ),
            click.option(
                "--root",
                "roots",
                type=FILE,
                multiple=True,
                help="Trusted root certificate.  [default: the vendor's own, else the network's]",
            ),
            click.option(
                "--at", metavar="TIME", help="Judge as of this time (ISO 8601 or unix seconds).  [default: now]"
            ),
        )
    ):
        command = option(command)
    return command


@evidence.command()
@click.argument("file", type=FILE)
@click.option("--kind", type=click.Choice(KINDS), required=True, help="Kind of evidence.")
@collateral_options
@options
def show(
    session: Session,
    file: Path,
    kind: str,
    collateral: tuple[Path, ...],
    certificates: tuple[Path, ...],
    roots: tuple[Path, ...],
    at: str | None,
) -> None:
    """Prove the evidence in FILE up to its vendor's root, and show what it says. No network is asked.

    FILE holds the raw quote (tdx, sgx), the raw report (snp, with --certificate), the JSON of the confidential-containers
    agent (snp-vtpm), or the payload as an enclave sends it. That it holds says nothing yet of whether it is good enough:
    see cloister policy explain.
    """
    from cloister.attestation.assurance import warning_for
    from cloister.sdk.evidence import build_claims_json, load_exhibit

    exhibit = load_exhibit(
        file, kind, collateral=collateral, certificates=certificates, roots=roots, network=session.network, at=at
    )
    claims = exhibit.claims()
    warning = warning_for(claims.kind)
    value = {"verified": True, "at": exhibit.at, "warning": warning, **build_claims_json(claims)}

    def draw() -> None:
        from cloister.cli.render import errors, facts

        click.secho("the evidence holds, up to its root", fg="green", bold=True)
        facts(_flatten(value))
        if warning:
            errors.print(warning, style="bold yellow")

    session.show(value, draw)


def _flatten(value: dict[str, object]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, item in value.items():
        if name in ("verified", "warning"):
            continue
        if isinstance(item, dict):
            rows += [(f"{name}.{inner}", _spell(each)) for inner, each in item.items()]
        else:
            rows.append((name.replace("_", " "), _spell(item)))
    return rows


def _spell(item: object) -> object:
    if isinstance(item, list | dict):
        pairs = [f"{name} {each}" for name, each in item.items()] if isinstance(item, dict) else map(str, item)
        return ", ".join(pairs) or "none"
    return "none" if item is None else item
