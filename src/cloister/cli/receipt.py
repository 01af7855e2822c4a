"""``cloister receipt``: check a receipt offline."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session, options

if TYPE_CHECKING:
    from cloister.attestation.receipt import BulkUse

RECEIPT_CAP = 256 * 1024


@click.group()
def receipt() -> None:
    """Check a receipt offline."""


@receipt.command()
@click.argument("file", type=click.Path(path_type=Path))
@options
def verify(session: Session, file: Path) -> None:
    """Prove the receipt in FILE: who signed it, which program on which evidence, for which task and data."""
    from cloister.errors import NotFound
    from cloister.sdk.receipts import check_receipt, load_reference_values

    if not file.is_file():
        raise NotFound(f"no receipt at {file}")
    with file.open("rb") as stream:
        verified = check_receipt(stream.read(RECEIPT_CAP + 1), load_reference_values(session.network))
    claims = verified.claims
    binding = claims.binding
    dataset = claims.dataset
    value = {
        "verified": True,
        "warning": verified.warning,
        "chain_id": binding.chain_id,
        "hub": "0x" + binding.hub.hex(),
        "task_id": "0x" + binding.task_id.hex(),
        "app_digest": "0x" + binding.app_digest.hex(),
        "dataset": None if dataset is None else "0x" + dataset.address.hex(),
        "dataset_checksum": None if dataset is None else "0x" + dataset.checksum.hex(),
        "bulk": None if claims.bulk is None else [_describe(item) for item in claims.bulk],
        "result_digest": "0x" + claims.result_digest.hex(),
        "started_at": datetime.fromtimestamp(claims.started_at, UTC).isoformat(),
        "finished_at": datetime.fromtimestamp(claims.finished_at, UTC).isoformat(),
    }

    def draw() -> None:
        from cloister.cli.render import errors, facts

        click.secho("the receipt holds", fg="green", bold=True)
        facts(
            [
                (name.replace("_", " "), text)
                for name, text in value.items()
                if name not in ("verified", "warning", "bulk")
            ]
        )
        for item in claims.bulk or ():
            click.echo(f"{'0x' + item.address.hex()}  {item.cause or 'ok'}")
        if verified.warning:
            errors.print(verified.warning, style="bold yellow")

    session.show(value, draw)


def _describe(item: BulkUse) -> dict[str, str | None]:
    """One item of a bulk slice: what was opened, under which grant, or why nothing was."""
    use = item.released
    hashes = {
        "checksum": None if use is None else use.checksum,
        "order_hash": None if use is None else use.order_hash,
        "policy_hash": None if use is None else use.policy_hash,
    }
    texts = {name: None if value is None else "0x" + value.hex() for name, value in hashes.items()}
    return {"dataset": "0x" + item.address.hex(), "cause": item.cause, **texts}
