"""iApps: upload a bundle, register it, offer it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloister.errors import Denied, InputError, NotFound, quoted
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.orders import AppOrder, OrderKind, sign_order
from cloister.protocol.tags import TDX, TEE
from cloister.protocol.units import INFINITE_VOLUME, parse_nrlc
from cloister.sdk.connection import Connection
from cloister.sdk.progress import Listener, Progress, counted
from cloister.storage.multiaddr import build_multiaddr, parse_multiaddr

READ_SIZE = 1 << 20
STORED = "/ipfs/"
BUNDLE_CAP = 4 << 30
"""Largest bundle or image that is downloaded, bytes."""


@dataclass(frozen=True, slots=True)
class App:
    """An app on chain. ``multiaddr`` is where its bundle lies, ``checksum`` the bundle's SHA-256 (the app digest)."""

    address: Address
    name: str
    owner: Address
    multiaddr: str
    checksum: Bytes32

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Offer:
    """An app order that stands on the market. ``price`` is in nRLC, ``remaining`` counts runs; ``user`` and ``dataset`` are
    None when it is for any.
    """

    order_hash: Bytes32
    price: int
    remaining: int
    uses: int
    user: Address | None
    dataset: Address | None

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return asdict(self)


class IApps:
    """Deploys, publishes and shows apps."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._tell = listener

    def deploy(self, bundle: Path, *, name: str, digest: Bytes32 | None = None) -> App:
        """Upload a bundle (``cloister iapp build``) and register it for the wallet. Deploying the same again gives the same app.

        ``digest``: the app's, where it is not the file's SHA-256: the digest of an image's manifest, for an image's archive.

        Raises:
            InputError: there is no such file, or the name is empty.
        """
        connection = self._connection
        if not bundle.is_file():
            raise InputError(f"no bundle at {bundle}", hint="cloister iapp build FOLDER")
        if not name:
            raise InputError("an app needs a name")
        checksum = hashlib.sha256()
        self._tell(Progress("UPLOAD_BUNDLE"))
        stored = connection.store.put(
            counted(_hashed_file(bundle, checksum), "UPLOAD_BUNDLE", bundle.stat().st_size, self._tell)
        )
        self._tell(Progress("UPLOAD_BUNDLE", finished=True, detail=str(stored.cid)))
        return self.register(f"/ipfs/{stored.cid}", digest or Bytes32.from_raw(checksum.digest()), name=name)

    def register(self, location: str, digest: Bytes32, *, name: str) -> App:
        """Register an app that lies somewhere already: a bundle or an image's archive in storage (``/ipfs/…``), or an image on a
        public registry (``docker.io/user/app:1.0``, with the digest of its manifest or index). Enclaves run what has this digest.

        Raises:
            InputError: no location, or the name is empty.
        """
        if not name:
            raise InputError("an app needs a name")
        connection = self._connection
        arguments = (connection.address, name, "DOCKER", build_multiaddr(location), digest, b"")
        address = connection.apps.predict_app(*arguments, block="latest")
        self._tell(Progress("DEPLOY_APP"))
        if connection.apps.owner_of_entry(address, block="latest") is None:
            connection.sender.send(connection.apps.create_app(*arguments), intent=f"app:{address}")
        self._tell(Progress("DEPLOY_APP", finished=True, detail=address))
        return App(address, name, connection.address, location, digest)

    def publish(
        self,
        app: str,
        *,
        price: str | int = 0,
        uses: int = INFINITE_VOLUME,
        user: str | None = None,
        dataset: str | None = None,
    ) -> Bytes32:
        """Offer the app on the market: ``uses`` runs at ``price`` each, to ``user`` (None: anyone). Returns the order's hash.

        Raises:
            NotFound: no such app.
            Denied: the wallet does not own it.
            InputError: a value is out of range.
        """
        connection = self._connection
        if not 1 <= uses <= INFINITE_VOLUME:
            raise InputError(f"uses must be 1 to {INFINITE_VOLUME}, not {uses}", hint="for example uses=100")
        shown = self.show(app)
        if shown.owner != connection.address:
            raise Denied(
                f"{shown.address} belongs to {shown.owner}, not to {connection.address}", hint="use its owner's wallet"
            )
        order = sign_order(
            AppOrder(
                app=shown.address,
                appprice=parse_nrlc(price),
                volume=uses,
                tag=TEE | TDX,
                datasetrestrict=ZERO_ADDRESS if dataset is None else Address(dataset),
                workerpoolrestrict=ZERO_ADDRESS,
                requesterrestrict=ZERO_ADDRESS if user is None else Address(user),
                salt=Bytes32.from_raw(secrets.token_bytes(32)),
            ),
            connection.signer,
            connection.domain,
        )
        return connection.market.publish(order, connection.signer)

    def show(self, app: str) -> App:
        """An app's fields.

        Raises:
            NotFound: no app is registered at the address.
        """
        connection = self._connection
        address = Address(app)
        block = connection.rpc.block_number()
        owner = connection.apps.owner_of_entry(address, block=block)
        if owner is None:
            raise NotFound(f"no app deployed at {address}", hint="check the address, and the network")
        entry = connection.apps.app(address, block=block)
        if entry is None:
            raise NotFound(f"no app deployed at {address}", hint="check the address, and the network")
        return App(address, entry.name, owner, parse_multiaddr(entry.multiaddr), entry.checksum)

    def list(self, owner: str | None = None) -> Iterator[App]:
        """Apps of ``owner`` (default: the wallet)."""
        connection = self._connection
        who = Address(owner) if owner is not None else connection.address
        block = connection.rpc.block_number()
        for index in range(connection.apps.balance_of(who, block=block)):
            yield self.show(connection.apps.entry_of_owner(who, index, block=block))

    def offers(self, app: str) -> Iterator[Offer]:
        """What of the app stands on the market and is not used up, for whomever it is."""
        connection = self._connection
        for record in connection.market.orders(
            OrderKind.APP, app=Address(app), dataset="any", requester="any", workerpool="any"
        ):
            order = record.order
            if not isinstance(order, AppOrder):
                continue
            # The chain knows first what is closed or used up; the market follows a little later.
            left = order.volume - connection.hub.consumed(record.order_hash, block="latest")
            if left > 0:
                yield Offer(
                    record.order_hash,
                    order.appprice,
                    left,
                    order.volume,
                    None if order.requesterrestrict == ZERO_ADDRESS else order.requesterrestrict,
                    None if order.datasetrestrict == ZERO_ADDRESS else order.datasetrestrict,
                )

    def open_bundle(self, app: str, *, length: int | None = None) -> Iterator[bytes]:
        """Yield what storage has of the app's bundle (its first ``length`` bytes), proven to be the content that the chain
        names; that it has the app's checksum is for the caller to prove.

        Raises:
            NotFound: no such app, or storage does not have it. InputError: it is not in storage, but on a registry.
        """
        shown = self.show(app)
        if not shown.multiaddr.startswith(STORED):
            raise InputError(
                f"the app is at {quoted(shown.multiaddr)}, which is not in the network's storage",
                hint="only what lies in storage is read",
            )
        store = self._connection.store
        reference = shown.multiaddr.removeprefix(STORED)
        if length is not None:
            length = min(length, store.stat(reference).size)
        return store.open(reference, length=length, cap=BUNDLE_CAP)

    def bundle_size(self, app: str) -> int:
        """How many bytes storage says the app's bundle has.

        Raises:
            as :meth:`open_bundle`.
        """
        shown = self.show(app)
        if not shown.multiaddr.startswith(STORED):
            raise InputError(f"the app is at {quoted(shown.multiaddr)}, which is not in the network's storage")
        return self._connection.store.stat(shown.multiaddr.removeprefix(STORED)).size

    def has_secret(self, app: str) -> bool:
        """Whether the app was given a secret."""
        return self._connection.sms.has_app_secret(Address(app))

    def push_secret(self, app: str, secret: str) -> None:
        """Give the app a secret that only its enclaves get. It cannot be changed later; the same again changes nothing.

        Raises:
            Conflict: the app has another one.
        """
        self._connection.sms.push_app_secret(Address(app), secret, self._connection.signer)


def _hashed_file(path: Path, digest: Any) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(READ_SIZE):
            digest.update(chunk)
            yield chunk
