"""``cloister iapp deploy``, ``publish``, ``show`` and ``list``: iApps on chain and on the market."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.cli.session import Session, jsonable, options


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", help="Name on chain.  [default: the manifest's]")
@click.option(
    "--secret", type=click.Path(path_type=Path, exists=True), help="File whose content only the app's enclaves get."
)
@options
def deploy(session: Session, source: Path, name: str | None, secret: Path | None) -> None:
    """Upload and register SOURCE: a folder (built first) or a bundle."""
    from cloister.generator.bundle import build_bundle, load_manifest

    bundle = build_bundle(source, None).path if source.is_dir() else source
    with session.progress() as listener:
        apps = session.protector(listener).apps
        deployed = apps.deploy(bundle, name=name or load_manifest(bundle).name)
        if secret is not None:
            apps.push_secret(deployed.address, secret.read_text())

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("app", deployed.address),
                ("name", deployed.name),
                ("bundle", deployed.multiaddr),
                ("digest", deployed.checksum),
            ]
        )

    session.show(deployed.to_json(), draw)


@click.command()
@click.argument("address")
@click.option("--price", default="0", show_default=True, help='Price of one run, such as "0.05 RLC".')
@click.option("--uses", type=click.IntRange(min=1), help="How many runs.  [default: no limit]")
@click.option("--user", help="Only for this requester.")
@options
def publish(session: Session, address: str, price: str, uses: int | None, user: str | None) -> None:
    """Offer the app at ADDRESS on the market."""
    from cloister.protocol.units import INFINITE_VOLUME

    order_hash = session.protector().apps.publish(address, price=price, uses=uses or INFINITE_VOLUME, user=user)
    session.show({"order_hash": order_hash}, lambda: click.echo(f"published app order {order_hash}"))


@click.command()
@click.argument("address")
@options
def show(session: Session, address: str) -> None:
    """Show one app."""
    shown = session.protector(needs_wallet=False).apps.show(address)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("app", shown.address),
                ("name", shown.name),
                ("owner", shown.owner),
                ("bundle", shown.multiaddr),
                ("digest", shown.checksum),
            ]
        )

    session.show(shown.to_json(), draw)


@click.command("list")
@click.option("--owner", help="Apps of this address.  [default: the wallet's]")
@options
def list_(session: Session, owner: str | None) -> None:
    """List apps."""
    found = list(session.protector(needs_wallet=owner is None).apps.list(owner))

    def draw() -> None:
        from cloister.cli.render import table

        table("apps", ("address", "name", "digest"), [(a.address, a.name, a.checksum) for a in found])

    session.show(jsonable(found), draw)
