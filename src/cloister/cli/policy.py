"""``cloister policy``: hardware rules of data owners, and why evidence passes or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.evidence import FILE, KINDS, collateral_options
from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.attestation.verdicts import Verdict
    from cloister.sdk.policies import StandingPolicy


@click.group()
def policy() -> None:
    """Say which enclaves may use data, and why one may or not."""


@policy.command()
@click.argument("rules", type=FILE)
@click.option("--evidence", "evidence", type=FILE, help="Evidence to judge; with --kind.")
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the evidence.")
@click.option("--receipt", type=FILE, help="Judge the evidence inside a receipt, as of its run.")
@collateral_options
@options
def explain(
    session: Session,
    rules: Path,
    evidence: Path | None,
    kind: str | None,
    receipt: Path | None,
    collateral: tuple[Path, ...],
    certificates: tuple[Path, ...],
    roots: tuple[Path, ...],
    at: str | None,
) -> None:
    """Judge evidence by the RULES in a JSON file: which rule refuses, what was found, what would pass.

    Works offline. Ends with 0 when the evidence passes and with 77 when a rule refuses it; evidence whose signatures do not
    hold is an error (76).
    """
    from cloister.errors import InputError, PolicyRejected
    from cloister.sdk.evidence import load_exhibit, load_receipt_exhibit
    from cloister.sdk.policies import judge_exhibit, load_rules

    parsed = load_rules(rules)
    if receipt is not None and evidence is None and kind is None:
        exhibit = load_receipt_exhibit(receipt, roots=roots, network=session.network, at=at)
    elif evidence is not None and kind is not None and receipt is None:
        exhibit = load_exhibit(
            evidence,
            kind,
            collateral=collateral,
            certificates=certificates,
            roots=roots,
            network=session.network,
            at=at,
        )
    else:
        raise InputError("name what to judge", hint="--evidence FILE --kind KIND, or --receipt FILE")
    verdict = judge_exhibit(parsed, exhibit)
    from cloister.attestation.explain import build_verdict_json

    distinct = None if parsed.distinct is None else parsed.distinct.value
    value = {
        "passes": verdict.ok,
        "code": verdict.code,
        "message": verdict.message or None,
        "remedy": verdict.remedy,
        "marks": list(verdict.marks),
        "distinct": distinct,
        "at": exhibit.at,
        "tree": build_verdict_json(verdict),
    }
    session.show(value, lambda: _draw_verdict(verdict, distinct))
    if not verdict.ok:
        click.get_current_context().exit(PolicyRejected.exit_code)


@policy.command()
@click.argument("rules", type=FILE)
@options
def check(session: Session, rules: Path) -> None:
    """Read the RULES in a JSON file and print them in the one form that is signed, with its hash."""
    import json

    from cloister.sdk.policies import load_rules, rules_hash

    parsed = load_rules(rules)
    value = {"hash": rules_hash(parsed), "policy": parsed.to_json(), "gaps": list(parsed.gaps)}

    def draw() -> None:
        from cloister.cli.render import errors

        click.echo(json.dumps(parsed.to_json(), indent=2, sort_keys=True, ensure_ascii=False))
        click.echo(f"hash {rules_hash(parsed)}")
        for gap in parsed.gaps:
            errors.print(f"{gap}: reference values are missing, so this enclave is refused", style="bold yellow")

    session.show(value, draw)


@policy.command("set")
@click.argument("dataset")
@click.argument("rules", type=FILE)
@options
def set_(session: Session, dataset: str, rules: Path) -> None:
    """Sign the RULES in a JSON file as what every enclave must meet that gets the data at DATASET, whatever a grant says."""
    from cloister.sdk.policies import load_rules

    _show(session, session.protector().set_data_policy(dataset, load_rules(rules)))


@policy.command()
@click.argument("dataset")
@options
def clear(session: Session, dataset: str) -> None:
    """Sign that nothing is demanded any more of enclaves that get the data at DATASET; grants keep their own rules."""
    _show(session, session.protector().set_data_policy(dataset, None))


@policy.command()
@click.argument("dataset")
@options
def show(session: Session, dataset: str) -> None:
    """Show what the present owner of the data at DATASET demands of every enclave."""
    _show(session, session.protector(needs_wallet=False).get_data_policy(dataset))


def _show(session: Session, found: StandingPolicy) -> None:
    import json

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("protected data", found.dataset),
                ("owner", found.owner),
                ("version", found.version),
                ("hash", found.policy_hash),
            ]
        )
        if found.rules is None:
            click.echo("nothing is demanded beside what grants say")
        else:
            click.echo(json.dumps(found.rules, indent=2, sort_keys=True, ensure_ascii=False))

    session.show(found.to_json(), draw)


def _draw_verdict(verdict: Verdict, distinct: str | None) -> None:
    from cloister.attestation.explain import explain as draw_tree

    for line in draw_tree(verdict):
        click.echo(line)
    if distinct is not None:
        click.echo(f"! distinct {distinct}: judged among the workers of one task, when the key is released")
    if verdict.ok:
        click.secho("this evidence passes", fg="green", bold=True)
    else:
        click.secho(f"this evidence is refused: {verdict.code}", fg="red", bold=True)
