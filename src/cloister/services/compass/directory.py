"""The directory file: workerpools and well-known apps of each chain, in the reference server's JSON (reference 3.5)."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.errors import CloisterError, ConfigurationError, DecodeError, UnavailableError, quoted
from cloister.protocol.codec import Address, check_keys, parse_address, parse_json, parse_text, parse_uint

FILE_CAP: Final = 4 * 1024 * 1024
"""Largest directory file, in bytes."""

MOST_CHAINS: Final = 1000
MOST_ENTRIES: Final = 10_000
"""Most workerpools, and most apps, of one chain."""

_NAME_CAP: Final = 200
_URL_CAP: Final = 2048
_URL: Final = re.compile(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?")

log = logging.getLogger("cloister.compass")


@dataclass(frozen=True, slots=True)
class ChainEntries:
    """What is known of one chain: the scheduler's URL by workerpool, the app's address by name."""

    workerpools: Mapping[Address, str]
    apps: Mapping[str, Address]


Directory = Mapping[int, ChainEntries]


def parse_directory(document: bytes) -> Directory:
    """Read ``[{chainId, description, iapps: [{key, address}], workerpools: [{name, apiUrl, address}]}]``.

    Raises:
        DecodeError: a missing, unknown or unreadable member, or the same chain, app or workerpool twice.
        TooLarge: more than ``FILE_CAP`` bytes.
    """
    chains: dict[int, ChainEntries] = {}
    for value in _parse_list("chains", parse_json(document, cap=FILE_CAP), most=MOST_CHAINS):
        given = check_keys(
            "chain", value, required=("chainId",), optional=("description", "iapps", "workerpools", "name")
        )
        chain_id = parse_uint("chainId", given["chainId"])
        where = f"chain {quoted(str(chain_id))}"
        if chain_id in chains:
            raise DecodeError(f"{where} stands twice in the directory")
        chains[chain_id] = ChainEntries(
            _parse_workerpools(where, given.get("workerpools", [])), _parse_apps(where, given.get("iapps", []))
        )
    return chains


def _parse_workerpools(where: str, value: object) -> dict[Address, str]:
    pools: dict[Address, str] = {}
    for item in _parse_list(f"{where}: workerpools", value, most=MOST_ENTRIES):
        given = check_keys(
            f"{where}: workerpool", item, required=("apiUrl", "address"), optional=("name", "description")
        )
        address = parse_address(f"{where}: workerpool address", given["address"])
        url = parse_text(f"{where}: apiUrl", given["apiUrl"], cap=_URL_CAP)
        if not _URL.fullmatch(url):
            raise DecodeError(f"{where}: apiUrl {quoted(url)} is not an http(s) url without user, query or fragment")
        if address in pools:
            raise DecodeError(f"{where}: workerpool {address} stands twice in the directory")
        pools[address] = url
    return pools


def _parse_apps(where: str, value: object) -> dict[str, Address]:
    apps: dict[str, Address] = {}
    for item in _parse_list(f"{where}: iapps", value, most=MOST_ENTRIES):
        given = check_keys(f"{where}: iapp", item, required=("key", "address"), optional=("name", "description"))
        name = parse_text(f"{where}: iapp key", given["key"], cap=_NAME_CAP)
        if not name or "/" in name:
            raise DecodeError(f"{where}: iapp key {quoted(name)} is empty or holds a slash")
        if name in apps:
            raise DecodeError(f"{where}: iapp {quoted(name)} stands twice in the directory")
        apps[name] = parse_address(f"{where}: iapp {quoted(name)}", given["address"])
    return apps


def _parse_list(what: str, value: object, *, most: int) -> list[object]:
    if not isinstance(value, list):
        raise DecodeError(f"{what}: expected a list, got {quoted(value)}")
    if len(value) > most:
        raise DecodeError(f"{what}: {len(value)} entries are more than {most}")
    return value


class DirectoryFile:
    """A directory file that is read again when it changes. Safe to use from several threads.

    A changed file that does not parse, or is gone, leaves the last good directory standing; the log says so once and
    ``check_ready`` as long as it lasts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._directory: Directory = {}
        self._fault: CloisterError | None = None

    def load(self) -> Directory:
        """Read the file for the first time.

        Raises:
            ConfigurationError: it is missing, unreadable or not a directory file.
        """
        with self._lock:
            self._refresh()
            if self._fault is not None:
                raise ConfigurationError(
                    f"the Compass file {self._path.name}: {self._fault.message}",
                    hint='it holds [{"chainId", "iapps": [{"key", "address"}], "workerpools": [{"apiUrl", "address"}]}]',
                ) from self._fault
            return self._directory

    def current(self) -> Directory:
        """The directory as the file has it now, or had it when it was last in order."""
        with self._lock:
            self._refresh()
            return self._directory

    def check_ready(self) -> None:
        """Return while the file is in order. Raises: UnavailableError when it is not."""
        with self._lock:
            self._refresh()
            if self._fault is not None:
                raise UnavailableError(f"the Compass file is not in order: {self._fault.message}")

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            if stamp == self._stamp:
                return
            self._stamp = None
            self._directory = parse_directory(_read(self._path))
        except OSError as error:
            self._complain(UnavailableError(f"cannot be read: {os.strerror(error.errno or 0).lower()}"))
            return
        except CloisterError as error:
            self._stamp = stamp  # the same bytes need not be judged again
            self._complain(error)
            return
        self._stamp, self._fault = stamp, None

    def _complain(self, fault: CloisterError) -> None:
        if self._fault is None or self._fault.message != fault.message:
            log.warning("the Compass file %s is not in order: %s", self._path.name, fault.message)
        self._fault = fault


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_CAP + 1)
