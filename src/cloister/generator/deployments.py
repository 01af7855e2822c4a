"""Deploying an app, and the record of what was deployed where: ``.cloister/deployments.json`` in the project's folder.

Each step finds out first whether it was done: a deployment that was broken off anywhere is finished by doing it again,
with one app, one order and one secret in the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.errors import Conflict, DecodeError, InputError
from cloister.files import locked, write_durably
from cloister.generator.bundle import load_digest, load_manifest
from cloister.protocol.codec import Address, Bytes32, check_keys, parse_json, parse_text, parse_uint
from cloister.protocol.units import INFINITE_VOLUME, parse_nrlc
from cloister.sdk.apps import App, IApps, Offer
from cloister.sdk.connection import Connection
from cloister.sdk.progress import Listener, Progress, silent

STATE_FOLDER = ".cloister"
RECORD_NAME = "deployments.json"
_VERSION = 1
_CAP = 16 << 20


@dataclass(frozen=True, slots=True)
class Deployment:
    """An app that was deployed from a folder. ``network`` is the name or URL under which the network was found; chain and
    hub say which one it is. ``order_hash``: the order that was published with it, if one was.
    """

    network: str
    chain_id: int
    hub: Address
    address: Address
    name: str
    version: str
    owner: Address
    multiaddr: str
    checksum: Bytes32
    deployed_at: str
    secret: bool = False
    order_hash: Bytes32 | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run costs and who may run: ``user`` None is anyone."""

    price: str | int = 0
    uses: int = INFINITE_VOLUME
    user: str | None = None

    def is_offer(self, offer: Offer) -> bool:
        """Whether an offer on the market is of these terms."""
        user = None if self.user is None else Address(self.user)
        return (offer.price, offer.uses, offer.user, offer.dataset) == (parse_nrlc(self.price), self.uses, user, None)


def deploy_bundle(
    apps: IApps,
    connection: Connection,
    bundle: Path,
    *,
    folder: Path | None = None,
    name: str | None = None,
    secret: Callable[[App], str | None] = lambda _: None,
    terms: Terms | None = None,
    tell: Callable[[str], None] = lambda _: None,
    listener: Listener = silent,
) -> Deployment:
    """Upload ``bundle``, register it, give it its secret and, with ``terms``, offer it; each step is recorded in ``folder``.

    ``secret`` is asked once the app is registered; None gives none. The offer comes last: nobody runs an app whose secret
    is not there.

    Raises:
        Conflict: the app has another secret. whatever the SDK's steps raise.
    """
    if terms is not None:
        parse_nrlc(terms.price)  # refused before anything is uploaded
        if not 1 <= terms.uses <= INFINITE_VOLUME:
            raise InputError(f"uses must be 1 to {INFINITE_VOLUME}, not {terms.uses}")
    with _alone(folder):
        return _deploy(apps, connection, bundle, folder, name, secret, terms, tell, listener)


def _deploy(
    apps: IApps,
    connection: Connection,
    bundle: Path,
    folder: Path | None,
    name: str | None,
    secret: Callable[[App], str | None],
    terms: Terms | None,
    tell: Callable[[str], None],
    listener: Listener,
) -> Deployment:
    if folder is not None:
        load_deployments(folder)  # a damaged record is told before anything is uploaded
    manifest = load_manifest(bundle)
    app = apps.deploy(bundle, name=name or manifest.name, digest=load_digest(bundle))
    known = find_deployment(folder, connection, app.address)
    record = known or Deployment(
        network=connection.source,
        chain_id=connection.network.chain_id,
        hub=connection.network.contracts.hub,
        address=app.address,
        name=app.name,
        version=manifest.version,
        owner=app.owner,
        multiaddr=app.multiaddr,
        checksum=app.checksum,
        deployed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _keep(folder, record, tell)
    given = secret(app)
    if given is not None:
        listener(Progress("PUSH_APP_SECRET"))
        try:
            apps.push_secret(app.address, given)
        except Conflict as error:
            raise Conflict(
                f"{app.address} has another secret already, and an app's secret cannot be changed",
                hint="change the app's version, and deploy it as a new app",
            ) from error
        listener(Progress("PUSH_APP_SECRET", finished=True))
    record = replace(record, secret=given is not None or apps.has_secret(app.address))
    _keep(folder, record, tell)
    if terms is not None:
        listener(Progress("PUBLISH_APP_ORDER"))
        record = replace(record, order_hash=_offer(apps, app, terms, tell))
        listener(Progress("PUBLISH_APP_ORDER", finished=True))
        _keep(folder, record, tell)
    return record


def load_deployments(folder: Path) -> tuple[Deployment, ...]:
    """Read what was deployed from ``folder``, oldest first; nothing when nothing was.

    Raises:
        DecodeError: the record is damaged.
    """
    path = folder / STATE_FOLDER / RECORD_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        return _parse_all(raw)
    except (DecodeError, InputError) as error:
        raise DecodeError(
            f"{path} is damaged: {error.message}", hint="restore it, or move it away: the apps stay where they are"
        ) from error


def find_deployment(folder: Path | None, connection: Connection, address: str) -> Deployment | None:
    """The record of one app on the connection's network, if there is one."""
    found = () if folder is None else load_deployments(folder)
    return next((item for item in found if _key(item) == (*network_key(connection), Address(address))), None)


def deployments_on(folder: Path, connection: Connection) -> tuple[Deployment, ...]:
    """What was deployed from ``folder`` on the connection's network."""
    return tuple(item for item in load_deployments(folder) if _key(item)[:2] == network_key(connection))


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """One deployment of a folder at a time: two at once would both find no offer, and both make one."""
    if folder is None or not os.access(folder, os.W_OK):
        yield
        return
    (folder / STATE_FOLDER).mkdir(mode=0o700, exist_ok=True)
    with locked(folder / STATE_FOLDER / ".deploy.lock"):
        yield


def network_key(connection: Connection) -> tuple[int, Address]:
    """Which network it is, whatever it is called here."""
    return connection.network.chain_id, connection.network.contracts.hub


def _offer(apps: IApps, app: App, terms: Terms, tell: Callable[[str], None]) -> Bytes32:
    """The order that offers the app on these terms: the one that stands there, or a new one."""
    standing: Iterable[Offer] = list(apps.offers(app.address))
    same = next((offer for offer in standing if terms.is_offer(offer)), None)
    for offer in standing:
        if not terms.is_offer(offer):
            tell(
                f"it is also on offer by order {offer.order_hash}; cloister order cancel app {offer.order_hash} ends that"
            )
    if same is not None:
        tell("it is on offer on these terms already")
        return same.order_hash
    return apps.publish(app.address, price=terms.price, uses=terms.uses, user=terms.user)


def _keep(folder: Path | None, record: Deployment, tell: Callable[[str], None]) -> None:
    """Add a record, or put it in place of the one of the same app; durable when this returns."""
    if folder is None:
        return
    state = folder / STATE_FOLDER
    try:
        state.mkdir(mode=0o700, exist_ok=True)
        with locked(state / f".{RECORD_NAME}.lock"):
            kept = {_key(item): item for item in load_deployments(folder)} | {_key(record): record}
            document = {"version": _VERSION, "deployments": [item.to_json() for item in kept.values()]}
            write_durably(state / RECORD_NAME, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:  # what happened on chain happened: a folder that cannot be written takes nothing back
        tell(f"warning: {state / RECORD_NAME} cannot be written ({error.strerror}): keep the address {record.address}")


def _key(record: Deployment) -> tuple[int, Address, Address]:
    return record.chain_id, record.hub, record.address


def _parse_all(raw: bytes) -> tuple[Deployment, ...]:
    document = check_keys("deployments", parse_json(raw, cap=_CAP), required=("version", "deployments"))
    if document["version"] != _VERSION or not isinstance(document["deployments"], list):
        raise DecodeError(f"version is not {_VERSION}")
    return tuple(_parse(item) for item in document["deployments"])


def _parse(value: object) -> Deployment:
    given = check_keys("deployment", value, required=[item.name for item in fields(Deployment)])
    order = given["order_hash"]
    if not isinstance(given["secret"], bool):
        raise DecodeError("secret is neither true nor false")
    texts = {
        name: parse_text(name, given[name], cap=2048)
        for name in ("network", "name", "version", "multiaddr", "deployed_at")
    }
    return Deployment(
        chain_id=parse_uint("chain_id", given["chain_id"]),
        hub=Address(str(given["hub"])),
        address=Address(str(given["address"])),
        owner=Address(str(given["owner"])),
        checksum=Bytes32(str(given["checksum"])),
        secret=given["secret"],
        order_hash=None if order is None else Bytes32(str(order)),
        **texts,
    )
