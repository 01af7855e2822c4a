"""``cloister iapp publish``, ``show`` and ``list``: iApps on chain and on the market."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.session import Session, jsonable, options, party

if TYPE_CHECKING:
    from cloister.protocol.bundles import Manifest
    from cloister.sdk.apps import App, IApps, Offer

_CHECKED = 64 << 20
"""Bundles up to this size are read whole by ``show``, bytes; of larger ones the front, unless it is asked."""


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
@click.option("--check", is_flag=True, help="Download a large bundle too, to check its digest.")
@options
def show(session: Session, address: str, check: bool) -> None:
    """Show one app: on chain, on the market, and what its bundle says it may do."""
    apps = session.protector(needs_wallet=False).apps
    shown = apps.show(address)
    offers = list(apps.offers(shown.address))
    manifest, proof = _read_manifest(apps, shown, check=check)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("app", shown.address),
                ("name", shown.name),
                ("owner", shown.owner),
                ("bundle", shown.multiaddr),
                ("digest", shown.checksum),
                ("proof", proof),
                *(_describe(manifest) if manifest is not None else ()),
                ("on offer", "; ".join(_describe_offer(offer) for offer in offers) or "no"),
            ]
        )

    session.show(
        shown.to_json()
        | {
            "manifest": None if manifest is None else manifest.to_json(),
            "proof": proof,
            "offers": jsonable(offers),
        },
        draw,
    )


@click.command("list")
@click.option("--owner", help="Apps of this address.  [default: the wallet's]")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Mark what was deployed from here.  [default: this folder]",
)
@options
def list_(session: Session, owner: str | None, folder: Path) -> None:
    """List apps: those of a wallet, and what was deployed from a folder."""
    from cloister.generator.deployments import deployments_on
    from cloister.protocol.codec import Address

    protector = session.protector(needs_wallet=False)
    here = {item.address: item for item in deployments_on(folder, protector.connection)}
    if owner is None and protector.connection.wallet is None and not here:
        protector = session.protector()  # says which wallet is missing
    whose = party(session, owner)
    found = [] if whose is None and protector.connection.wallet is None else list(protector.apps.list(whose))
    if owner is None:
        known = {app.address for app in found}
        found += [protector.apps.show(address) for address in here if Address(address) not in known]
    rows = [(app, list(protector.apps.offers(app.address))) for app in found]

    def draw() -> None:
        from cloister.cli.render import table

        table(
            "apps",
            ("address", "name", "on offer", "deployed from here", "digest"),
            [
                (
                    app.address,
                    app.name,
                    "; ".join(_describe_offer(offer) for offer in offers) or "no",
                    here[app.address].deployed_at if app.address in here else "",
                    app.checksum,
                )
                for app, offers in rows
            ],
        )

    session.show(
        [
            app.to_json()
            | {
                "offers": jsonable(offers),
                "deployed_here": here[app.address].to_json() if app.address in here else None,
            }
            for app, offers in rows
        ],
        draw,
    )


def _read_manifest(apps: IApps, app: App, *, check: bool) -> tuple[Manifest | None, str]:
    """The manifest in the deployed bundle, and in words what is proved of it."""
    from cloister.enclave.bundle import read_manifest
    from cloister.enclave.images.archive import looks_like_archive
    from cloister.errors import CloisterError
    from cloister.generator.images import read_published
    from cloister.protocol.bundles import MANIFEST_CAP

    hashed = hashlib.sha256()

    def counted(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            hashed.update(chunk)
            yield chunk

    chunks: Iterator[bytes]

    try:
        whole = check or apps.bundle_size(app.address) <= _CHECKED
        chunks = counted(apps.open_bundle(app.address, length=None if whole else 2 * MANIFEST_CAP))
        first = next(chunks, b"")
        if looks_like_archive(first):
            if not whole:
                return None, "a container image; --check reads all of it and proves the digest"
            return read_published(chain([first], chunks), app.checksum), "the image in storage is what the chain names"
        chunks = chain([first], chunks)
        manifest = read_manifest(chunks)
        if not whole:
            return manifest, "read from storage by the content's address; --check reads all and proves the digest"
        for _ in chunks:
            pass
    except CloisterError as error:
        return None, f"not read: {error.message}"
    if hashed.digest() != app.checksum.raw:
        return None, "WRONG: what storage has is not what the chain names; no enclave will run it"
    return manifest, "what storage has is what the chain names"


def _describe(manifest: Manifest) -> list[tuple[str, Any]]:
    resources = manifest.resources
    return [
        ("version", manifest.version),
        ("runtime", manifest.runtime),
        ("may connect to", ", ".join(manifest.network) or "nothing: no network"),
        ("purposes", ", ".join(manifest.purposes) or "any"),
        (
            "takes",
            f"{resources.memory_mib} MiB memory, {resources.disk_mib} MiB disk, {resources.seconds} s",
        ),
    ]


def _describe_offer(offer: Offer) -> str:
    from cloister.protocol.units import INFINITE_VOLUME, format_rlc

    runs = "" if offer.uses == INFINITE_VOLUME else f", {offer.remaining} runs left"
    whom = "anyone" if offer.user is None else offer.user
    data = "" if offer.dataset is None else f", on {offer.dataset} only"
    return f"{format_rlc(offer.price)} a run for {whom}{runs}{data}"
