"""``cloister iapp register``: an image that is on a registry already becomes an app."""

from __future__ import annotations

import click

from cloister.cli.session import Session, options


@click.command()
@click.argument("image")
@click.option("--digest", help="Digest of its manifest or index, 0x… or sha256:….  [default: what IMAGE says after @]")
@click.option("--name", help="Name on chain.  [default: the last part of the image's name]")
@options
def register(session: Session, image: str, digest: str | None, name: str | None) -> None:
    """Register IMAGE, such as docker.io/user/app@sha256:…, which workers will pull by that digest. Offer it with publish."""
    from cloister.errors import InputError
    from cloister.protocol.codec import Bytes32
    from cloister.worker.images import parse_reference

    reference = parse_reference(image)
    said = (digest or reference.digest or "").removeprefix("sha256:").removeprefix("0x")
    if not said:
        raise InputError(
            "an image is registered by its digest, since a tag may move",
            hint="write IMAGE@sha256:…, as docker images --digests or skopeo inspect tell it",
        )
    checksum = Bytes32(f"0x{said}")
    if reference.digest not in (None, said):
        raise InputError("the image's name says another digest than --digest")
    with session.progress() as listener:
        app = session.protector(listener).apps.register(image, checksum, name=name or reference.path.rpartition("/")[2])

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("app", app.address),
                ("name", app.name),
                ("image", app.multiaddr),
                ("digest", app.checksum),
                ("offer it", f"cloister iapp publish {app.address}"),
            ]
        )

    session.show(app.to_json(), draw)
