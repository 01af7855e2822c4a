"""The network's own part: what clients need to know to use it (``GET /-/network``)."""

from __future__ import annotations

from fastapi import APIRouter

from cloister.protocol.networks import NetworkDescription
from cloister.sdk.receipts import FILE_NAME, ReferenceValues
from cloister.services.descriptions import (
    ADDRESS,
    ANY_OBJECT,
    COUNT,
    TEXT,
    Description,
    Operation,
    answer,
    with_members,
)

_NETWORK = with_members(
    name=TEXT, chain_id=COUNT, rpc_url=TEXT, origin=TEXT, services=ANY_OBJECT, contracts=ANY_OBJECT, workerpool=ADDRESS
)


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

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return Description(
            {
                ("GET", "/-/network"): Operation("describeNetwork", {200: answer(_NETWORK)}),
                ("GET", f"/-/{FILE_NAME}"): Operation("referenceValues", {200: answer(ANY_OBJECT)}),
            }
        )

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def check_ready(self) -> None:
        """Always ready."""
