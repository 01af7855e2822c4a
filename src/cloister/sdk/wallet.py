"""Who the user is: a signing key, and the key that opens their results."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from cloister.errors import ConfigurationError, InputError, NotFound, quoted
from cloister.files import create_durably
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey
from cloister.sdk.home import network_folder, wallet_folder
from cloister.sealing.envelope import HpkePrivateKey

WALLET_VARIABLE = "CLOISTER_WALLET"
KEY_FILE_CAP = 4096


class Wallet:
    """A secp256k1 key and, made on first use, the HPKE key to which results are sealed.

    The result key is kept in ``wallets/<address>/result.key`` (0600) of the home folder: whoever loses it cannot open
    earlier results, and nobody can open them for you.
    """

    def __init__(self, key: PrivateKey) -> None:
        self.key = key

    @property
    def address(self) -> Address:
        """The account's address."""
        return self.key.address

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    @classmethod
    def from_file(cls, path: Path) -> Wallet:
        """Read a key file: 64 hex digits, ``0x`` allowed, readable by its owner only.

        Raises:
            NotFound: there is no such file.
            ConfigurationError: others may read it.
            InputError: it holds no key.
        """
        if not path.is_file():
            raise NotFound(f"no key file at {path}", hint="a key file holds 64 hex digits")
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path} may be read by others", hint=f"chmod 600 {path}")
        return cls(PrivateKey.parse(path.read_text()[:KEY_FILE_CAP].strip()))

    @classmethod
    def demo(cls, role: str, network: str = "local") -> Wallet:
        """A demo account of a local network, by its role (``hospital``, ``company``, ``researcher``, ``alice``, ``bob``).

        Raises:
            NotFound: the network has no such account here.
            ConfigurationError: its file of accounts is damaged, or others may read it.
        """
        path = network_folder(network) / "accounts.json"
        if not path.exists():
            raise NotFound(f"the network {quoted(network)} has no demo accounts on this machine", hint="cloister up")
        keys = load_keys(path)
        if role not in keys:
            raise NotFound(f"no demo account named {quoted(role)}", hint=f"one of: {', '.join(keys)}")
        return cls(keys[role])

    @classmethod
    def named(cls, who: str | None, network: str = "local") -> Wallet:
        """The wallet a user means: a key file's path, a demo account's role, or what ``CLOISTER_WALLET`` names.

        Raises:
            InputError: nothing was named.
            NotFound: what was named does not exist.
        """
        who = who or os.environ.get(WALLET_VARIABLE)
        if not who:
            raise InputError(
                "this needs a wallet", hint=f"--as ROLE_OR_KEY_FILE, or set {WALLET_VARIABLE} to a key file's path"
            )
        if "/" in who or Path(who).is_file():
            return cls.from_file(Path(who).expanduser())
        return cls.demo(who, network)

    def result_key(self) -> HpkePrivateKey:
        """The key that opens this wallet's results; made durably the first time."""
        path = wallet_folder(self.address) / "result.key"
        if not path.exists():
            key = HpkePrivateKey.generate(os.urandom)
            create_durably(path, base64.b64encode(key.raw))  # another process may have been first: then its key stays
        return HpkePrivateKey(base64.b64decode(path.read_bytes()))


def load_keys(path: Path) -> dict[str, PrivateKey]:
    """Read a file of private keys by role: one JSON object, readable by its owner only.

    Raises:
        ConfigurationError: others may read it, or it is damaged.
    """
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} may be read by others", hint=f"chmod 600 {path}")
    try:
        return {str(role): PrivateKey.parse(str(text)) for role, text in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError, InputError):
        # No `from`: the parser's error would carry the file's text, and the file holds keys.
        raise ConfigurationError(
            f"{path} is damaged", hint="restore it, or remove the network's folder to begin anew"
        ) from None
