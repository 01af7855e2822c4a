"""Options that say where a worker leads the connections of apps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def connect_to_option(text: str) -> Decorator:
    """``--connect-to HOST:PORT=HOST:PORT``, any number of them, as a mapping."""
    return click.option(
        "--connect-to", "connect_to", multiple=True, metavar="HOST:PORT=HOST:PORT", callback=_parse, help=text
    )


def app_network_option(text: str) -> Decorator:
    """``--app-network`` or ``--no-app-network``."""
    return click.option("--app-network/--no-app-network", "app_network", default=True, show_default=True, help=text)


def _parse(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    from cloister.errors import InputError, quoted
    from cloister.worker.connecting import parse_connect_to

    mapping: dict[str, str] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not equals or name in mapping:
            raise InputError(
                f"--connect-to {quoted(text)} is not HOST:PORT=HOST:PORT, or says it twice",
                hint="write it as rates.example.org:443=127.0.0.1:8443",
            )
        mapping[name] = place
    if mapping:
        parse_connect_to(mapping)
    return mapping
