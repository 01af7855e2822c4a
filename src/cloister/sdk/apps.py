"""iApps: upload a bundle, register it, offer it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloister.errors import Denied, InputError, NotFound
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.orders import AppOrder, sign_order
from cloister.protocol.tags import TDX, TEE
from cloister.protocol.units import INFINITE_VOLUME, parse_nrlc
from cloister.sdk.connection import Connection
from cloister.sdk.progress import Listener, Progress, counted
from cloister.storage.multiaddr import build_multiaddr, parse_multiaddr

READ_SIZE = 1 << 20


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


class IApps:
    """Deploys, publishes and shows apps."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._tell = listener

    def deploy(self, bundle: Path, *, name: str) -> App:
        """Upload a bundle (``cloister iapp build``) and register it for the wallet. Deploying the same again gives the same app.

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
        multiaddr = build_multiaddr(f"/ipfs/{stored.cid}")
        digest = Bytes32.from_raw(checksum.digest())
        arguments = (connection.address, name, "DOCKER", multiaddr, digest, b"")
        address = connection.apps.predict_app(*arguments, block="latest")
        self._tell(Progress("DEPLOY_APP"))
        if connection.apps.owner_of_entry(address, block="latest") is None:
            connection.sender.send(connection.apps.create_app(*arguments), intent=f"app:{address}")
        self._tell(Progress("DEPLOY_APP", finished=True, detail=address))
        return App(address, name, connection.address, f"/ipfs/{stored.cid}", digest)

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

    def push_secret(self, app: str, secret: str) -> None:
        """Give the app a secret that only its enclaves get. It cannot be changed later.

        Raises:
            Conflict: the app has one.
        """
        self._connection.sms.push_app_secret(Address(app), secret, self._connection.signer)


def _hashed_file(path: Path, digest: Any) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(READ_SIZE):
            digest.update(chunk)
            yield chunk
