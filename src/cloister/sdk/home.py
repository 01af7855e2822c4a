"""Where Cloister keeps its files on this machine, and how a network's description is found.

``$CLOISTER_HOME`` (default ``~/.local/share/cloister``)::

    networks/<name>/network.json    public description of a network
    networks/<name>/accounts.json   demo keys of a local network, 0600
    wallets/<address>/              result key and journals of a wallet, 0700
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from cloister.errors import DecodeError, InputError, NotFound, quoted
from cloister.protocol.networks import NetworkDescription, parse_network

LOCAL = "local"
DESCRIPTION_CAP = 64 * 1024


def home_folder() -> Path:
    """The folder of all state, made 0700 when absent."""
    named = os.environ.get("CLOISTER_HOME")
    folder = Path(named) if named else Path.home() / ".local" / "share" / "cloister"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def network_folder(name: str) -> Path:
    """Folder of a network's state.

    Raises:
        InputError: the name holds anything but letters, digits, dot, dash and underscore.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name):
        raise InputError(f"not a network name: {quoted(name)}", hint="letters, digits, dash, dot and underscore")
    return home_folder() / "networks" / name


def wallet_folder(address: str) -> Path:
    """Folder of a wallet's own state, made 0700 when absent."""
    folder = home_folder() / "wallets" / address.lower()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def load_description(network: str) -> NetworkDescription:
    """Find a network by name (its file in the home folder) or by URL (``<url>/-/network``).

    Raises:
        NotFound: no network of that name was started here.
        UnavailableError: the URL does not answer.
        DecodeError: what was found is no network description.
    """
    if network.startswith(("http://", "https://")):
        from cloister.transport import Http  # the HTTP library is a third of the SDK's import

        return parse_network(Http(network, max_response=DESCRIPTION_CAP).json("GET", "/-/network"))
    path = network_folder(network) / "network.json"
    if not path.exists():
        raise NotFound(f"no network named {quoted(network)} on this machine", hint="cloister up")
    try:
        return parse_network(json.loads(path.read_text()))
    except ValueError as error:
        raise DecodeError(f"{path} is damaged", hint="stop the network and run: cloister up") from error
