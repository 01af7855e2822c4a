"""The Compass file of a local network: where its workerpool's scheduler answers, beside what its operator added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloister.errors import ConfigurationError
from cloister.files import write_durably
from cloister.protocol.networks import NetworkDescription

FILE_NAME = "compass.json"


def save_compass(path: Path, description: NetworkDescription) -> None:
    """Bring the network's own entry up to date (its port may be another one today); all else in the file stays.

    Raises:
        ConfigurationError: the file is no Compass file.
    """
    try:
        chains: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else []
        chain = next((item for item in chains if item["chainId"] == description.chain_id), None)
        if chain is None:
            chain = {"chainId": description.chain_id, "description": description.name, "iapps": [], "workerpools": []}
            chains.append(chain)
        pools = chain.setdefault("workerpools", [])
        chain["workerpools"] = [pool for pool in pools if pool["address"].lower() != description.workerpool.lower()]
        chain["workerpools"].append(
            {"name": description.name, "apiUrl": description.services.scheduler, "address": description.workerpool}
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is no Compass file", hint="mend it, or remove it: it is written anew at the next start"
        ) from error
    write_durably(path, json.dumps(chains, indent=1).encode())
