"""Demo accounts of a local network: keys made once, kept in a 0600 file, named by the role they play."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import NotFound
from cloister.files import write_durably
from cloister.protocol.signatures import PrivateKey
from cloister.sdk.wallet import load_keys

DEMO_ROLES = ("hospital", "company", "researcher", "alice", "bob")
"""People that the tutorial and the demo speak of."""

OPERATOR_ROLES = ("deployer", "scheduler", "worker", "sms")
"""Keys that run the network itself: deployer owns the contracts, scheduler owns the workerpool, sms is the hub's teebroker."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Keys by role."""

    keys: Mapping[str, PrivateKey]

    def key(self, role: str) -> PrivateKey:
        """The key of a role.

        Raises:
            NotFound: no such role.
        """
        try:
            return self.keys[role]
        except KeyError:
            raise NotFound(f"no demo account named {role}", hint=f"one of: {', '.join(self.keys)}") from None


def load_accounts(path: Path) -> Accounts:
    """Read the file, or make it with fresh keys the first time.

    Raises:
        ConfigurationError: the file is readable by others or damaged.
    """
    if not path.exists():
        _write_new(path)
    return Accounts(load_keys(path))


def _write_new(path: Path) -> None:
    keys = {role: "0x" + secrets.token_bytes(32).hex() for role in (*DEMO_ROLES, *OPERATOR_ROLES)}
    write_durably(path, json.dumps(keys, indent=1).encode())
