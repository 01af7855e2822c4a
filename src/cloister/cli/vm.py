"""``cloister vm``: build the image of the virtual machine that is an enclave, and measure it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cloister.errors import InputError

_LOCK_CAP = 4 << 20


@click.group()
def vm() -> None:
    """Build and measure the virtual machine that is an enclave."""


@vm.command()
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Folder to build into.")
@click.option(
    "--lock",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Manifest of an earlier image: demand exactly its packages and files.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line.")
def build(output: Path | None, lock: Path | None, *, as_json: bool) -> None:
    """Build the image from Debian packages, this installation's agent and its libraries. Same inputs, same bytes."""
    from cloister.network.enclaves import machines_folder
    from cloister.worker.vm.builder import build_image
    from cloister.worker.vm.image import parse_manifest
    from cloister.worker.vm.kept import image_folder

    demanded = None
    if lock is not None:
        with lock.open("rb") as file:
            demanded = parse_manifest(file.read(_LOCK_CAP + 1))
    image = build_image(
        output or image_folder(machines_folder()),
        cache=machines_folder() / "packages",
        lock=demanded,
        announce=lambda text: None if as_json else click.secho(text, dim=True, err=True),
    )
    manifest = image.manifest
    if as_json:
        _echo_json({"image": str(image.folder), "digest": image.digest, **manifest.to_json()})
        return
    click.secho(f"image built: {image.folder}", fg="green", bold=True)
    for name, digest in sorted(manifest.outputs.items()):
        click.echo(f"  {name:<15} {(image.folder / name).stat().st_size / 1e6:7.1f} MB  sha256 {digest}")
    click.echo(f"  from {len(manifest.packages)} Debian packages and {len(manifest.files)} files of this installation")
    click.echo(f"  image digest    {image.digest}")


@vm.command()
@click.argument("image", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--processors", default=2, show_default=True, help="The measurement depends on their number.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line.")
def measure(image: Path | None, processors: int, *, as_json: bool) -> None:
    """Boot IMAGE once with a TPM of its own and print what was measured: the reference value for policies."""
    from cloister.attestation.tpm.boot import describe_boot
    from cloister.attestation.tpm.payload import BOOT_PCRS
    from cloister.network.enclaves import machines_folder
    from cloister.worker.vm.image import load_image
    from cloister.worker.vm.kept import image_folder
    from cloister.worker.vm.measure import HELD, measure_image
    from cloister.worker.vm.qemu import VmOptions

    if processors < 1:
        raise InputError(f"a machine has at least one processor, not {processors}")
    loaded = load_image(image or image_folder(machines_folder()))
    if not as_json:
        click.secho("booting the image once", dim=True, err=True)
    found = measure_image(loaded, VmOptions(processors=processors))
    described = {name: value for name, value in describe_boot(found.events).items() if isinstance(value, str)}
    if as_json:
        _echo_json(
            {
                "image": loaded.digest,
                "measurement": found.measurement.hex(),
                "pcrs": {str(index): found.pcrs[index].hex() for index in BOOT_PCRS},
                "kernel": found.kernel,
                "network": list(found.network),
                "seconds": round(found.seconds, 2),
                "boot": described,
            }
        )
        return
    click.secho(f"measurement {found.measurement.hex()}", fg="green", bold=True)
    for index in BOOT_PCRS:
        click.echo(f"  PCR {index}  {found.pcrs[index].hex()}  {HELD[index]}")
    for name, text in described.items():
        click.echo(f"  {name.replace('_', ' ')}: {text}")
    click.echo(f"  kernel {found.kernel}, agent ready after {found.seconds:.1f} s")


def _echo_json(value: object) -> None:
    click.echo(json.dumps(value, sort_keys=True))
