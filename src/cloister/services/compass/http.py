"""The routes of Compass: ``/{chain id}/workerpools/{address}`` and ``/{chain id}/iapps/{name}``."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from fastapi.routing import APIRoute
from starlette.routing import Match

from cloister.errors import ConfigurationError, DecodeError, NotFound, quoted
from cloister.protocol.codec import Address
from cloister.services.compass.description import COMPASS
from cloister.services.compass.directory import ChainEntries, DirectoryFile
from cloister.services.compass.settings import CompassSettings
from cloister.services.descriptions import Description

_CHAIN: Final = re.compile(r"[0-9]{1,20}", re.ASCII)


class _ChainRoute(APIRoute):
    """A route whose first segment is a chain id, so that it stands in nobody's way on a shared origin."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        match, child = super().matches(scope)
        if match is not Match.NONE and not _CHAIN.fullmatch(str(child["path_params"]["chain_id"])):
            return Match.NONE, {}
        return match, child


class CompassPart:
    """Compass as a part of an application."""

    name = "compass"

    def __init__(self, settings: CompassSettings) -> None:
        self._chain_id = settings.chain_id
        self._file = DirectoryFile(settings.path)

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return COMPASS

    def router(self) -> APIRouter:
        """The two lookups."""
        router = APIRouter(tags=["compass"], route_class=_ChainRoute)

        @router.get("/{chain_id}/workerpools/{address}")
        def workerpool(chain_id: str, address: Annotated[str, Path(max_length=100)]) -> dict[str, str]:
            """Where the scheduler of a workerpool answers; the address in any case of letters."""
            try:
                wanted = Address(address)
            except DecodeError as error:
                raise NotFound(f"no workerpool {quoted(address)}", hint="an address has 40 hex digits") from error
            url = self._chain(chain_id).workerpools.get(wanted)
            if url is None:
                raise NotFound(f"no workerpool {wanted} is known on chain {chain_id}")
            return {"apiUrl": url}

        @router.get("/{chain_id}/iapps/{name}")
        def iapp(chain_id: str, name: Annotated[str, Path(max_length=200)]) -> dict[str, str]:
            """The address of a well-known app."""
            address = self._chain(chain_id).apps.get(name)
            if address is None:
                raise NotFound(f"no iapp {quoted(name)} is known on chain {chain_id}")
            return {"address": str(address)}

        return router

    def start(self) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it is not there or not in order, or does not know the chain.
        """
        if self._chain_id not in self._file.load():
            raise ConfigurationError(
                f"the Compass file does not know chain {self._chain_id}", hint="add an entry with that chainId"
            )

    def stop(self) -> None:
        """Nothing to stop."""

    def check_ready(self) -> None:
        """Return while the file is in order. Raises: UnavailableError when it is not."""
        self._file.check_ready()

    def _chain(self, chain_id: str) -> ChainEntries:
        entries = self._file.current().get(int(chain_id))
        if entries is None:
            raise NotFound(f"chain {chain_id} is not known here")
        return entries
