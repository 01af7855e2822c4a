"""Protecting data: pack, encrypt, upload, mint, hand the key over. A step that failed is resumed; nothing is paid twice.

Everything streams, so memory does not grow with the data. Once the ciphertext is stored, a small journal in the wallet's
folder (0600) remembers the key, the CID and the checksum until the SMS holds the key. Before that point a retry encrypts
anew with fresh randomness: the same key and nonces never meet two plaintexts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloister.datasets.packing import Packed, pack
from cloister.errors import ConfigurationError, Conflict
from cloister.files import write_durably
from cloister.protocol.codec import Address, Bytes32
from cloister.sdk.connection import Connection
from cloister.sdk.home import wallet_folder
from cloister.sdk.progress import Listener, Progress, counted
from cloister.sealing.keys import (
    ContentFormat,
    build_content_key,
    generate_content_key,
    parse_content_key,
    seal_content,
    sealed_content_size,
)
from cloister.sealing.pipeline import run_ahead
from cloister.storage.multiaddr import build_multiaddr


@dataclass(frozen=True, slots=True)
class ProtectedData:
    """A dataset on chain. ``schema`` is the nested type map; ``created`` is Unix seconds, None where unknown."""

    address: Address
    name: str
    owner: Address
    schema: Mapping[str, Any]
    multiaddr: str
    checksum: str
    created: int | None = None
    transaction: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What must not be forgotten between upload and the SMS's acknowledgement."""

    fingerprint: str
    name: str
    schema: str
    cid: str
    checksum: str
    key: str

    def __repr__(self) -> str:
        return f"_Stored({self.name!r}, {self.cid})"


class Protection:
    """Protects one value for the connection's wallet."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._tell = listener
        self._folder = wallet_folder(connection.address) / "protections" / connection.network.contracts.hub.lower()

    def protect(
        self, value: object, name: str, content_format: ContentFormat = ContentFormat.AES256_GCM_HKDF_1MB
    ) -> ProtectedData:
        """Protect ``value`` (dict, bytes, Path, DataFrame) under ``name``.

        Raises:
            InputError: the value cannot be packed.
            UnavailableError: storage, chain or SMS is down; the same call goes on where it stopped.
        """
        self._tell(Progress("EXTRACT_DATA_SCHEMA"))
        packed = pack(value)
        self._tell(Progress("EXTRACT_DATA_SCHEMA", finished=True))
        path = value if isinstance(value, Path) else None
        stored = self._pending(name, path, value)
        if stored is None or parse_content_key(stored.key).format is not content_format:
            stored = self._store(packed, name, path, content_format)
        return self._finish(stored, packed.schema)

    def _store(self, packed: Packed, name: str, path: Path | None, content_format: ContentFormat) -> _Stored:
        key = generate_content_key(os.urandom, content_format)
        checksum = hashlib.sha256()
        plaintext = None if path is not None else hashlib.sha256()
        total = None if packed.size is None else sealed_content_size(key.format, packed.size)
        before = None if path is None else _path_fingerprint(path)
        source = packed.chunks if plaintext is None else _hashed(packed.chunks, plaintext)
        # One thread packs and encrypts, this one hashes and uploads.
        sealed = run_ahead(seal_content(key, source, entropy=os.urandom))
        stored = self._connection.store.put(
            _hashed(counted(sealed, "UPLOAD_ENCRYPTED_FILE", total, self._tell), checksum)
        )
        self._tell(Progress("UPLOAD_ENCRYPTED_FILE", finished=True, detail=str(stored.cid)))
        if path is not None and before != _path_fingerprint(path):
            raise Conflict(
                f"{path} changed while it was being protected", hint="run it again when nothing writes there"
            )
        record = _Stored(
            fingerprint=before if before is not None else f"sha256:{plaintext.hexdigest() if plaintext else ''}",
            name=name,
            schema=packed.schema_json,
            cid=str(stored.cid),
            checksum="0x" + checksum.hexdigest(),
            key=build_content_key(key),
        )
        self._remember(record)
        return record

    def _finish(self, stored: _Stored, schema: Mapping[str, Any]) -> ProtectedData:
        connection = self._connection
        multiaddr = build_multiaddr(f"/ipfs/{stored.cid}")
        checksum = Bytes32(stored.checksum)
        call = connection.dataprotector.create_dataset_with_schema(
            connection.address, stored.name, stored.schema, multiaddr, checksum
        )
        self._tell(Progress("DEPLOY_PROTECTED_DATA"))
        receipt = connection.sender.send(call, intent=f"protect:{stored.checksum}")
        address = connection.dataprotector.created_dataset(receipt)
        self._tell(Progress("DEPLOY_PROTECTED_DATA", finished=True, detail=address))
        self._tell(Progress("PUSH_SECRET_TO_SMS"))
        connection.sms.push_dataset_secret(address, stored.key, connection.signer)
        self._tell(Progress("PUSH_SECRET_TO_SMS", finished=True))
        self._forget(stored)
        return ProtectedData(
            address=address,
            name=stored.name,
            owner=connection.address,
            schema=schema,
            multiaddr=f"/ipfs/{stored.cid}",
            checksum=checksum,
            transaction=receipt.transaction,
        )

    # --- the journal ---

    def _pending(self, name: str, path: Path | None, value: object) -> _Stored | None:
        """A protection of the same source under the same name that did not finish."""
        records = [self._read(file) for file in sorted(self._folder.glob("*.json"))] if self._folder.exists() else []
        records = [record for record in records if record.name == name]
        if not records:
            return None
        if path is not None:
            fingerprint = _path_fingerprint(path)
        else:
            digest = hashlib.sha256()
            for _ in _hashed(pack(value).chunks, digest):
                pass
            fingerprint = f"sha256:{digest.hexdigest()}"
        return next((record for record in records if record.fingerprint == fingerprint), None)

    def _file(self, checksum: str) -> Path:
        return self._folder / f"{checksum}.json"

    def _remember(self, record: _Stored) -> None:
        write_durably(self._file(record.checksum), json.dumps(asdict(record)).encode())

    def _forget(self, record: _Stored) -> None:
        self._file(record.checksum).unlink(missing_ok=True)

    @staticmethod
    def _read(file: Path) -> _Stored:
        try:
            return _Stored(**json.loads(file.read_text()))
        except (ValueError, TypeError):
            # No `from`: the parser's error would carry the file's text, and the file holds a key.
            raise ConfigurationError(f"{file} is damaged", hint="remove it to begin that protection anew") from None


def _hashed(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _path_fingerprint(path: Path) -> str:
    """Names, sizes and times of everything under ``path``: changes when the content does, without reading it."""
    digest = hashlib.sha256()
    root = path.resolve()
    for entry in [root, *sorted(root.rglob("*"))] if root.is_dir() else [root]:
        status = entry.stat()
        size = 0 if entry.is_dir() else status.st_size
        digest.update(f"{entry}\0{size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return f"path:{digest.hexdigest()}"
