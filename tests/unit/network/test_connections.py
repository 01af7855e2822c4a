"""Where a local network's worker leads connections of apps: from the command line to its settings."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cloister.cli.connections import app_network_option, connect_to_option
from cloister.errors import CloisterError
from cloister.network.local import LocalOptions


@click.command()
@connect_to_option("where to")
@app_network_option("whether")
def command(connect_to: dict[str, str], app_network: bool) -> None:
    """Says what it was given."""
    click.echo(f"{connect_to} {app_network}")


def test_nothing_is_led_elsewhere_by_default() -> None:
    assert CliRunner().invoke(command, []).output == "{} True\n"
    assert LocalOptions().connect_to == {}
    assert LocalOptions().app_network


def test_hosts_are_led_elsewhere() -> None:
    given = ["--connect-to", "a.example:443=127.0.0.1:1", "--connect-to=b.example=[::1]:2", "--no-app-network"]
    expected = {"a.example:443": "127.0.0.1:1", "b.example": "[::1]:2"}
    assert CliRunner().invoke(command, given).output == f"{expected} False\n"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["a.example:443"], "is not HOST:PORT=HOST:PORT"),
        (["a.example:443=127.0.0.1:1", "a.example:443=127.0.0.1:2"], "says it twice"),
        (["a.example:443=127.0.0.1"], "127.0.0.1 is not host:port"),
        (["10.0.0.1:443=127.0.0.1:1"], "10.0.0.1 is an address"),
        (["=127.0.0.1:1"], "is not a host name"),
    ],
)
def test_what_makes_no_sense_is_refused(given: list[str], reason: str) -> None:
    result = CliRunner().invoke(command, [f"--connect-to={text}" for text in given])
    assert isinstance(result.exception, CloisterError)
    assert reason in result.exception.message
    assert "rates.example.org:443=127.0.0.1:8443" in str(result.exception.hint)
