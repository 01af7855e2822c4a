"""The network's own part: what clients need to know to use it (``GET /-/network``)."""

from __future__ import annotations

from fastapi import APIRouter

from cloister.protocol.networks import NetworkDescription
from cloister.sdk.receipts import FILE_NAME, ReferenceValues


class NetworkPart:
    """Serves the public description and reference values."""

    name = "network"

    def __init__(self, description: NetworkDescription, values: ReferenceValues) -> None:
        self._description = description.to_json()
        self._values = values.to_json()

    def router(self) -> APIRouter:
        """The two documents."""
        router = APIRouter(prefix="/-", tags=["network"])

        @router.get("/network")
        async def describe() -> dict[str, object]:
            """Chain, contracts and URLs of this network."""
            return self._description

        @router.get(f"/{FILE_NAME}")
        async def reference_values() -> dict[str, object]:
            """Roots and measurements that evidence on this network rests on, as the network itself says."""
            return self._values

        return router

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def check_ready(self) -> None:
        """Always ready."""
