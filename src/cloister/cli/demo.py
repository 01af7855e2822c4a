"""``cloister demo``: the hospital, the company and the researcher, told step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.network.demo import HospitalDemo, Story
    from cloister.sdk.account import Balances

T = TypeVar("T")
OWN_NETWORKS = {"bubblewrap": "demo", "oci": "demo-oci", "vm": "demo-vm"}


@click.command()
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("demo-result"),
    show_default=True,
    help="Folder for the result's files.",
)
@click.option(
    "--enclave",
    type=click.Choice(["bubblewrap", "oci", "vm"]),
    help="Run on a network of the demo's own with these enclaves: a sandbox, a container, or a measured virtual machine.",
)
@options
def demo(session: Session, output: Path, enclave: str | None) -> None:
    """Run the hospital demo: on the network that is up here, or on one of its own."""
    from cloister.network.demo import HospitalDemo
    from cloister.sdk.progress import silent

    started = time.monotonic()
    with _network(session, enclave) as name:
        story = HospitalDemo(name, output, silent)
        _tell(session, story)
    if session.as_json:
        session.show(_summary(story.story, time.monotonic() - started), lambda: None)
    else:
        click.secho(f"\ndone in {time.monotonic() - started:.1f} s", dim=True)


@contextmanager
def _network(session: Session, enclave: str | None) -> Iterator[str]:
    """The network to use: the named one when it is up, else one that lives as long as the demo.

    A demo that names its enclaves always has a network of its own.
    """
    from cloister.network.enclaves import EnclaveChoice
    from cloister.network.local import LocalNetwork, LocalOptions
    from cloister.network.state import NetworkState, is_up

    if enclave is None and is_up(session.network):
        yield session.network
        return
    choice = EnclaveChoice(enclave or "bubblewrap")
    name = OWN_NETWORKS[choice.value]
    if not session.as_json:
        why = "no network is up here: starting one" if enclave is None else f"starting a network ({choice.value})"
        click.secho(f"{why} for the demo", dim=True)
    # A story begins at its beginning: what an earlier run left is not needed, and would only grow.
    NetworkState(name).clear()
    network = LocalNetwork(LocalOptions(name=name, port=0, chain_port=0, enclave=choice))
    network.start(announce=(lambda _: None) if session.as_json else lambda text: click.secho(text, dim=True))
    try:
        if not session.as_json:
            click.secho(f"network ready in {network.ready_seconds:.1f} s: {network.description.origin}", dim=True)
        yield name
    finally:
        network.stop()


def _tell(session: Session, demo: HospitalDemo) -> None:
    quiet = session.as_json

    def step(title: str, action: Callable[[], T], say: Callable[[T], str]) -> T:
        from cloister.cli.render import errors

        begun = time.monotonic()
        if quiet:
            return action()
        with errors.status(title):
            value = action()
        click.echo(
            click.style("✓ ", fg="green") + title + click.style(f"  ({time.monotonic() - begun:.1f} s)", dim=True)
        )
        for line in say(value).splitlines():
            click.echo(f"    {line}")
        return value

    if not quiet:
        from cloister.cli.render import enclave_notice

        enclave_notice(demo.enclave_kind)
    step(
        "the company builds, deploys and publishes its iApp for 0.03 RLC a run",
        demo.company_publishes,
        lambda app: f"app {app.address}\ndigest {app.checksum}",
    )
    step(
        "the hospital protects the records of 569 patients",
        demo.hospital_protects,
        lambda data: f"protected data {data.address}\nciphertext {data.multiaddr}; the key is with the SMS",
    )
    step(
        "the hospital grants access: this app, this researcher, research only, 3 times, 30 days, 0.05 RLC each",
        demo.hospital_grants,
        lambda grant: f"grant {grant.order_hash}",
    )
    step(
        "the researcher pays 0.1 RLC; the app trains inside the enclave",
        demo.researcher_runs,
        lambda run: f"task {run.task_id}",
    )
    story = step("the researcher opens the encrypted result", demo.researcher_opens, _result_lines)
    if not quiet:
        _draw_money(story)
    step("the hospital revokes the grant", demo.hospital_revokes, lambda transaction: f"transaction {transaction}")
    step(
        "the researcher tries again and is refused before any money moves",
        demo.researcher_is_refused,
        lambda words: words,
    )


def _result_lines(story: Story) -> str:
    from cloister.attestation.assurance import proof_for

    metrics = story.metrics
    receipt = story.receipt
    lines = [
        f"trained on {metrics['trained_on']} patients, scored on {metrics['scored_on']}",
        f"accuracy {metrics['accuracy']:.1%}, ROC AUC {metrics['roc_auc']:.3f}",
        "saved " + ", ".join(str(path) for path in story.saved),
    ]
    if receipt is not None:
        lines.append(
            f"receipt verified: {proof_for(receipt.claims.evidence.kind)}"
            + (f"\n{receipt.warning}" if receipt.warning else "")
        )
    return "\n".join(lines)


def _draw_money(story: Story) -> None:
    from cloister.cli.render import rlc, table
    from cloister.network.demo import earned

    def row(role: str) -> tuple[str, str, str, str]:
        before, after = story.before[role], story.after[role]
        change = earned(story, role)
        name = "workerpool owner" if role == "scheduler" else role
        return (
            name,
            rlc(_total(before)),
            rlc(_total(after)),
            f"{'+' if change > 0 else ''}{rlc(change) if change >= 0 else '-' + rlc(-change)}",
        )

    click.echo()
    table("money in the hub's accounts", ("party", "before", "after", "change"), [row(role) for role in story.before])
    click.echo()


def _total(balances: Balances) -> int:
    return balances.stake + balances.locked


def _summary(story: Story, seconds: float) -> dict[str, object]:
    from cloister.network.demo import earned

    run = story.run
    return {
        "app": story.app.address if story.app else None,
        "protected_data": story.data.address if story.data else None,
        "grant": story.grant.order_hash if story.grant else None,
        "task": run.task_id if run else None,
        "metrics": dict(story.metrics),
        "earned": {role: earned(story, role) for role in story.before},
        "refusal": story.refusal,
        "files": [str(path) for path in story.saved],
        "simulated": story.receipt.simulated if story.receipt else None,
        "enclave": story.receipt.claims.evidence.kind.value if story.receipt else None,
        "warning": story.receipt.warning if story.receipt else None,
        "seconds": round(seconds, 2),
    }
