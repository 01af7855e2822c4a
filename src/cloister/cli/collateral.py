"""``cloister collateral``: what vendors say of their platforms, kept for the checking of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.services.collateral.service import CollateralService, Outcome


@click.group()
def collateral() -> None:
    """Vendors' collateral: certificates, revocation lists and lists of good firmware.

    Evidence of TDX, SGX and SEV-SNP is judged with it. Everything is proven under the vendor's root before it is kept, and
    nothing older than what was seen before is taken.

    A network asks no vendor by itself: import a bundle, or name sources in collateral.json in the network's folder; every
    member may be left out:

    \b
      {"intel": {"url": "https://api.trustedservices.intel.com", "platforms": ["tdx/b0c06f000000"]},
       "amd": {"url": "https://kdsintf.amd.com", "products": ["Genoa"]},
       "tpm": {"url": "https://ca.example/tpm.crl"},
       "bundle": "/srv/collateral.cbor"}
    """


@collateral.command()
@options
def status(session: Session) -> None:
    """List what is kept and how long it holds."""
    from cloister.clients.collateral import CollateralClient
    from cloister.sdk.home import load_description

    found = CollateralClient(load_description(session.network).origin).status()

    def draw() -> None:
        from cloister.cli.render import table

        rows = [
            (
                each["kind"],
                each["key"] if len(each["key"]) < 40 else each["key"][:38] + "…",
                _day(each["issued"]),
                _day(each["next_update"]),
                "EXPIRED" if each["expired"] else f"{each['days_left']:.1f}",
                _number(each),
                each["source"],
            )
            for each in found["documents"]
        ]
        columns = ["what", "key", "issued", "holds until", "days left", "number", "from"]
        table("Collateral kept", columns, rows, empty="nothing is kept")
        if found["expired"]:
            click.secho(f"{found['expired']} expired: evidence that needs them is refused", fg="yellow", err=True)
        for each in found["sources"]:
            if each["failure"]:
                click.secho(f"{each['name']}: {each['failure']}", fg="yellow", err=True)

    session.show(found, draw)


@collateral.command()
@click.argument("key")
@options
def show(session: Session, key: str) -> None:
    """Print every piece whose name or key contains KEY (tdx/…, platform, Milan): who signed it and what it says."""
    from cloister.attestation.bundle import parse_bundle
    from cloister.clients.collateral import CollateralClient
    from cloister.errors import NotFound
    from cloister.sdk.home import load_description

    _quieten()
    client = CollateralClient(load_description(session.network).origin)
    lines = [each for each in client.status()["documents"] if key in f"{each['kind']} {each['key']}"]
    if not lines:
        raise NotFound(f"nothing that is kept has {key!r} in its name", hint="cloister collateral status")
    contents = _contents(parse_bundle(client.bundle()).documents)
    found = [{**each, "content": contents.get(each["digest"])} for each in lines]

    def draw() -> None:
        from cloister.cli.render import facts

        for each in found:
            facts([(name.replace("_", " "), _readable(name, value)) for name, value in each.items()])
            click.echo()

    session.show(found, draw)


@collateral.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options
def export(session: Session, file: Path) -> None:
    """Write everything that is kept and holds into FILE, for a machine without a network."""
    from cloister.attestation.bundle import parse_bundle
    from cloister.clients.collateral import CollateralClient
    from cloister.files import write_durably
    from cloister.sdk.home import load_description

    encoded = CollateralClient(load_description(session.network).origin).bundle()
    bundle = parse_bundle(encoded)
    write_durably(file, encoded)
    value = {"file": str(file), "made_at": bundle.made_at, "documents": len(bundle.documents), "bytes": len(encoded)}
    session.show(value, lambda: click.echo(f"wrote {value['documents']} documents to {file}"))


@collateral.command(name="import")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--kind",
    type=click.Choice(["snp", "tpm"]),
    help="Whose a certificate or revocation list in DER or PEM is. Bundles and Intel's JSON say it themselves.",
)
@options
def import_(session: Session, files: tuple[Path, ...], kind: str | None) -> None:
    """Prove and keep what FILES hold: bundles, Intel's collateral in JSON, or certificates and CRLs with --kind.

    Works on a network of this machine, running or not. Whatever is refused is named, and the rest is kept.
    """
    service = _local_service(session)
    _quieten()
    outcomes = [outcome for file in files for outcome in _take(service, file, kind)]
    _tell(session, outcomes)


@collateral.command()
@click.option("--all", "everything", is_flag=True, help="Ask for everything again, whether due or not.")
@options
def refresh(session: Session, everything: bool) -> None:
    """Ask the sources for what is due now. Works on a network of this machine, running or not."""
    from cloister.errors import ConfigurationError

    service = _local_service(session)
    if not service.feed_states:
        raise ConfigurationError(
            f"network {session.network} names no source of collateral",
            hint='put {"intel": {"url": "https://api.trustedservices.intel.com"}, "amd": {"url": '
            '"https://kdsintf.amd.com"}} into collateral.json in the network\'s folder, or import a bundle',
        )
    _tell(session, service.refresh(everything=everything))


def _quieten() -> None:
    """AMD numbers its chips' certificates 0, of which the library warns each time; the reader of this can do nothing about it."""
    import warnings

    warnings.filterwarnings("ignore", message="Parsed a serial number")


def _local_service(session: Session) -> CollateralService:
    """The service of a network whose state lies on this machine, not served."""
    from cloister.errors import InputError
    from cloister.network.collateral import load_collateral_service

    if "://" in session.network:
        raise InputError(
            f"{session.network} is another machine's", hint="run this where its services run, with --network NAME"
        )
    return load_collateral_service(session.network)


def _take(service: CollateralService, file: Path, kind: str | None) -> list[Outcome]:
    from cloister.attestation.bundle import MAX_BUNDLE, parse_bundle, parse_collateral_file
    from cloister.attestation.evidence import EvidenceKind
    from cloister.errors import NotFound

    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BUNDLE + 1)
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error
    if kind is None and content[:1] != b"{":
        return service.take_bundle(parse_bundle(content), source=f"file {file.name}")
    documents = parse_collateral_file(content, None if kind is None else EvidenceKind(kind))
    return service.take(documents, source=f"file {file.name}")


def _tell(session: Session, outcomes: Sequence[Outcome]) -> None:
    """Show what became of each piece; fail when any was refused."""
    from cloister.errors import UnavailableError, VerificationError

    def draw() -> None:
        from rich.markup import escape

        from cloister.cli.render import table

        rows = [(each.id, each.result, escape(each.message or "")) for each in outcomes]
        table("Collateral", ["what", "result", "why"], rows, empty="nothing was due")

    session.show([each.to_json() for each in outcomes], draw)
    refused = [each for each in outcomes if each.result == "refused"]
    if refused:
        first = refused[0]
        away = all(each.code == UnavailableError.code for each in refused)
        raise (UnavailableError if away else VerificationError)(
            f"{len(refused)} of {len(outcomes)} pieces refused; the first: {first.message}", code=first.code
        )


def _contents(documents: Sequence[Any]) -> dict[str, Any]:
    """What pieces say, by the SHA-256 of their bodies: JSON as it is, the serial numbers of a CRL, the names in a certificate."""
    import hashlib
    import json
    from contextlib import suppress

    from cryptography import x509

    from cloister.attestation.pieces import PieceName, split_document

    contents: dict[str, Any] = {}
    for document in documents:
        for piece in split_document(document):
            with suppress(ValueError):
                digest = hashlib.sha256(piece.body).hexdigest()
                if piece.name in (PieceName.TCB_INFO, PieceName.QE_IDENTITY):
                    contents[digest] = json.loads(piece.body)
                elif piece.name is PieceName.CERTIFICATE:
                    certificate = x509.load_der_x509_certificate(piece.body)
                    names = (certificate.subject, certificate.issuer)
                    contents[digest] = dict(
                        zip(("subject", "issuer"), (n.rfc4514_string() for n in names), strict=True)
                    )
                else:
                    crl = x509.load_der_x509_crl(piece.body)
                    revoked = [f"{each.serial_number:x}" for each in crl]
                    contents[digest] = {"issuer": crl.issuer.rfc4514_string(), "revoked": revoked}
    return contents


def _readable(name: str, value: Any) -> Any:
    import json

    if name in ("issued", "next_update", "came_at"):
        return _day(value)
    return json.dumps(value, indent=2) if name == "content" and value is not None else value


def _number(line: dict[str, Any]) -> str:
    if line["evaluation_number"] is not None:
        return f"evaluation {line['evaluation_number']}"
    return "" if line["crl_number"] is None else f"CRL {line['crl_number']}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
