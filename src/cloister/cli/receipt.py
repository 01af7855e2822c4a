"""``cloister receipt``: check a receipt, offline and beside the chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.sdk.verdict import Verdict


@click.group()
def receipt() -> None:
    """Check a receipt, offline and beside the chain."""


@receipt.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rpc", metavar="URL", help="Hold it against the chain too, through this node.")
@click.option("--log", metavar="URL", help="Hold it against the transparency log that the SMS at URL shows today.")
@click.option(
    "--roots",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Trust the roots and programs in FILE (reference-values.json) and not those of the network.",
)
@options
def verify(session: Session, file: Path, rpc: str | None, log: str | None, roots: Path | None) -> None:
    """Prove the receipt in FILE: which program ran on which data for whom, on which evidence, and who says so.

    Without --rpc and --log nothing is asked of anybody: roots and programs are those that this machine has pinned for the
    network, or those in --roots. Exit code 0 only when everything holds; 76 when a signature or proof fails, 77 when it
    rests on something that is not trusted here, 65 when it is no receipt.
    """
    from cloister.sdk.verdict import verify_receipt

    verdict = verify_receipt(file, network=session.network, roots=roots, rpc=rpc, log=log)
    session.show(verdict.to_json(), lambda: _draw(verdict))


def _draw(verdict: Verdict) -> None:
    from cloister.cli.render import errors, facts

    told = verdict.to_json()
    click.secho("the receipt holds", fg="green", bold=True)
    log = told["log"]
    rows = [
        ("app", told["app"]),
        ("program", told["app_digest"]),
        ("requester", told["requester"]),
        ("task", told["task_id"]),
        *_data(told),
        ("result", f"{told['result_digest']}" + ("" if told["cause"] is None else f", failed: {told['cause']}")),
        ("when", f"{told['started_at']} to {told['finished_at']}"),
        ("enclave", f"signed this with key {told['enclave_challenge']}, which was born in it"),
        ("hardware", _hardware(told)),
        ("sms", f"{told['sms']} appraised that at {told['appraisal']['at']} and countersigned"),
        ("log", f"its release is entry {log['index']} of {log['size']}, root {log['root']}{_today(log)}"),
        ("chain", _chain(told)),
    ]
    facts(rows)
    for remark in told["appraisal"]["marks"]:
        errors.print(f"accepted with a remark: {remark}", style="yellow")
    if told["warning"]:
        errors.print(told["warning"], style="bold yellow")


def _data(told: dict[str, object]) -> list[tuple[str, str]]:
    bulk = told["bulk"]
    if isinstance(bulk, list):
        return [("data", f"{item['dataset']}  {item['cause'] or 'ok'}") for item in bulk]
    if told["dataset"] is None:
        return [("data", "none")]
    names = {"data": "dataset", "ciphertext": "dataset_checksum", "grant": "grant", "policy": "policy"}
    return [(title, str(told[name])) for title, name in names.items() if told[name] is not None]


def _hardware(told: dict[str, object]) -> str:
    evidence, appraisal = told["evidence"], told["appraisal"]
    if not isinstance(evidence, dict) or not isinstance(appraisal, dict):
        return ""
    status = "" if appraisal["tcb"] is None else f", firmware {appraisal['tcb']}"
    return f"{evidence['kind']} evidence binds that key to measurement {evidence['measurement']}{status}"


def _today(log: dict[str, object]) -> str:
    return "" if log["continued_to"] is None else f", continued by today's log of {log['continued_to']}"


def _chain(told: dict[str, object]) -> str:
    chain = told["chain"]
    name = f"chain {told['chain_id']}, hub {told['hub']}"
    if not isinstance(chain, dict):
        return f"not asked (--rpc URL): {name}"
    return f"says the same at block {chain['block']}: {name}"
