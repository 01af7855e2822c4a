"""Which sources an operator named, read from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cloister.errors import ConfigurationError, quoted
from cloister.services.collateral.feeds import INTEL_ROOT_CRL, AmdFeed, Feed, IntelFeed, TpmCrlFeed

SOURCES_CAP: Final = 64 * 1024


def load_feeds(path: Path) -> tuple[list[Feed], Path | None]:
    """Read the operator's sources from a JSON file; the second answer is its bundle. Without the file: none.

    ``{"intel": {"url": "https://…", "root_crl": "https://…", "platforms": ["tdx/<fmspc>"]}, "amd": {"url": "https://…",
    "products": ["Genoa"]}, "tpm": {"url": "https://…"}, "bundle": "/path"}``; every member may be missing.

    Raises:
        ConfigurationError: the file does not say that; the message names the member.
    """
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(SOURCES_CAP))
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path.name} is not readable json") from error
    given = _members("", value, {"intel", "amd", "tpm", "bundle"})
    feeds: list[Feed] = []
    if "intel" in given:
        intel = _members("intel.", given["intel"], {"url", "root_crl", "platforms"})
        url = _text("intel.url", intel.get("url"))
        root = intel.get("root_crl", INTEL_ROOT_CRL if "intel.com" in url else None)
        feeds.append(
            IntelFeed(
                url,
                root_crl_url=None if root is None else _text("intel.root_crl", root),
                platforms=_texts("intel.platforms", intel.get("platforms", [])),
            )
        )
    if "amd" in given:
        amd = _members("amd.", given["amd"], {"url", "products"})
        feeds.append(
            AmdFeed(_text("amd.url", amd.get("url")), products=_texts("amd.products", amd.get("products", [])))
        )
    if "tpm" in given:
        feeds.append(TpmCrlFeed(_text("tpm.url", _members("tpm.", given["tpm"], {"url"}).get("url"))))
    return feeds, Path(_text("bundle", given["bundle"])) if "bundle" in given else None


def _members(where: str, value: object, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"collateral sources: {where or 'the file'} is not an object")
    unknown = sorted(set(value) - known)
    if unknown:
        raise ConfigurationError(
            f"collateral sources: {quoted(where + unknown[0])} is unknown", hint=f"known: {', '.join(sorted(known))}"
        )
    return value


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"collateral sources: {where} is not a text")
    return value


def _texts(where: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise ConfigurationError(f"collateral sources: {where} is not a list")
    return [_text(f"{where}[{place}]", each) for place, each in enumerate(value)]
