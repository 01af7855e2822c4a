"""Compass over a real socket, beside a part whose paths it must leave alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from fastapi import APIRouter

from cloister.errors import ConfigurationError, DecodeError, TooLarge
from cloister.services.application import BackgroundServer, build_application
from cloister.services.compass.directory import FILE_CAP, parse_directory
from cloister.services.compass.part import build_compass_part
from cloister.services.compass.settings import CompassSettings

POOL = "0xB967057a21dc6A66A29721d96b8Aa7454B7c383F"
APP = "0x2956f0cb779904795a5f30d3b3ea88b714c3123f"
CHAIN = 421614
ENTRY: dict[str, Any] = {
    "chainId": CHAIN,
    "description": "a network",
    "iapps": [{"key": "web3mail-tdx", "address": APP}],
    "workerpools": [{"name": "pool", "apiUrl": "http://core:13000", "address": POOL}],
}


class Neighbour:
    """Another service with three segments in a path."""

    name = "neighbour"

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.get("/{place}/workerpools/{name}")
        def look(place: str, name: str) -> dict[str, str]:
            return {"neighbour": f"{place} {name}"}

        return router

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def check_ready(self) -> None: ...


Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compass") / "compass.json"


@pytest.fixture(scope="module")
def origin(file: Path) -> Iterator[str]:
    _write(file)
    part = build_compass_part(CompassSettings(CHAIN, file))
    with BackgroundServer(build_application([part, Neighbour()])) as server:
        yield server.url


@pytest.fixture
def ask(origin: str, file: Path) -> Ask:
    _write(file)

    def ask(path: str, method: str = "GET") -> tuple[int, Any]:
        answer = urllib3.request(method, origin + path, timeout=10, retries=False)
        assert "application/json" in answer.headers["content-type"]
        return answer.status, answer.json()

    return ask


def _write(file: Path) -> None:
    file.write_text(json.dumps([ENTRY, {"chainId": "1"}]))


def test_clients_find_the_scheduler_of_a_pool_whatever_the_case_of_its_address(ask: Ask) -> None:
    for spelling in (POOL, POOL.lower(), "0x" + POOL[2:].upper()):
        assert ask(f"/{CHAIN}/workerpools/{spelling}") == (200, {"apiUrl": "http://core:13000"})


def test_well_known_apps_have_an_address(ask: Ask) -> None:
    status, body = ask(f"/{CHAIN}/iapps/web3mail-tdx")
    assert (status, body["address"].lower()) == (200, APP)


@pytest.mark.parametrize(
    "path",
    [
        f"/{CHAIN}/workerpools/{APP}",
        f"/{CHAIN}/workerpools/pool.eth",
        f"/{CHAIN}/iapps/web3telegram",
        f"/{CHAIN}/iapps/Web3mail-tdx",
        "/1/iapps/web3mail-tdx",
        f"/7/workerpools/{POOL}",
        f"/99999999999999999999/workerpools/{POOL}",
        f"/{CHAIN}",
        f"/{CHAIN}/workerpools",
    ],
)
def test_what_is_not_known_is_404_in_json(ask: Ask, path: str) -> None:
    status, body = ask(path)
    assert status == 404
    assert body["error"]


@pytest.mark.parametrize("place", ["somewhere", "-1", "0x1", "9" * 21, "9" * 5000, "1e3", "٤٢"])
def test_only_numbers_are_chains(ask: Ask, place: str) -> None:
    assert ask(f"/{place}/workerpools/{POOL}") == (200, {"neighbour": f"{place} {POOL}"})


def test_other_methods_are_refused(ask: Ask) -> None:
    assert ask(f"/{CHAIN}/iapps/web3mail-tdx", "POST")[0] == 405


def test_a_changed_file_is_served_at_once_and_a_broken_one_never(ask: Ask, file: Path) -> None:
    def served() -> Any:
        return ask(f"/{CHAIN}/workerpools/{POOL}")[1]

    assert ask("/-/ready")[0] == 200
    replacement = file.with_name("new.json")
    replacement.write_text(
        json.dumps([{**ENTRY, "workerpools": [{"apiUrl": "https://b.example/core", "address": POOL}]}])
    )
    replacement.replace(file)
    assert served() == {"apiUrl": "https://b.example/core"}
    file.write_text("[{")
    assert served() == {"apiUrl": "https://b.example/core"}
    status, report = ask("/-/ready")
    assert status == 503
    assert "not in order" in report["parts"]["compass"]
    file.unlink()
    assert served() == {"apiUrl": "https://b.example/core"}
    file.write_text(json.dumps([ENTRY]))
    assert served() == {"apiUrl": "http://core:13000"}
    assert ask("/-/ready")[0] == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("", "not valid json"),
        ("{}", "expected a list"),
        (json.dumps([{"chainId": 1}]), "does not know chain 421614"),
    ],
)
def test_it_does_not_start_without_a_good_file(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "compass.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        build_compass_part(CompassSettings(CHAIN, path)).start()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chainId": "one"}, "chainId"),
        ({"chainId": True}, "chainId"),
        ({"chainId": -1}, "chainId"),
        ({"surprise": 1}, "unknown key surprise"),
        ({"iapps": {}}, "expected a list"),
        ({"iapps": [{"key": "a"}]}, "missing key address"),
        ({"iapps": [{"key": "", "address": APP}]}, "empty"),
        ({"iapps": [{"key": "a/b", "address": APP}]}, "slash"),
        ({"iapps": [{"key": "a", "address": "0x12"}]}, "iapp a"),
        ({"iapps": 2 * ENTRY["iapps"]}, "twice"),
        ({"workerpools": 2 * ENTRY["workerpools"]}, "twice"),
        ({"workerpools": [{"address": POOL}]}, "missing key apiUrl"),
        ({"workerpools": [{"address": POOL, "apiUrl": "javascript:alert(1)"}]}, "not an http"),
        ({"workerpools": [{"address": POOL, "apiUrl": "http://user:pass@core"}]}, "not an http"),
        ({"workerpools": [{"address": POOL, "apiUrl": 7}]}, "apiUrl"),
        ({"workerpools": [7]}, "expected an object"),
    ],
)
def test_a_directory_is_checked_member_by_member(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        parse_directory(json.dumps([{**ENTRY, **change}]).encode())


def test_a_chain_stands_once_and_a_file_has_a_size() -> None:
    with pytest.raises(DecodeError, match="twice"):
        parse_directory(json.dumps([ENTRY, ENTRY]).encode())
    with pytest.raises(TooLarge):
        parse_directory(b" " * (FILE_CAP + 1))


def test_a_chain_id_of_settings_is_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        CompassSettings(0, tmp_path / "compass.json")
