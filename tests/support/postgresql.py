"""A throw-away PostgreSQL for the tests, when its programs and the driver are on the machine."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def why_absent() -> str | None:
    """Say what is missing to run PostgreSQL here, or ``None``."""
    if _program("initdb") is None:
        return "no PostgreSQL programs on this machine"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    return None


def _program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


class Cluster:
    """A running server on a loopback port; ``new_database`` gives the URL of an empty database."""

    def __init__(self, port: int) -> None:
        self._port = port

    def _url(self, name: str) -> str:
        return f"postgresql://tester@127.0.0.1:{self._port}/{name}"

    def new_database(self) -> str:
        import psycopg

        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a server and remove it afterwards. It refuses to run as root, so then as the user its package made."""
    import psycopg

    user = "postgres" if os.geteuid() == 0 else None
    root = Path(tempfile.mkdtemp(prefix="cloister-postgresql-"))
    data = root / "data"
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(root, entry.pw_uid, entry.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": root, "user": user}
    subprocess.run(  # type: ignore[call-overload]
        [_program("initdb"), "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"], check=True, **quiet
    )
    server = subprocess.Popen(  # type: ignore[call-overload]
        [
            _program("postgres"),
            *("-D", data, "-p", str(port), "-k", root, "-h", "127.0.0.1"),
            *("-c", "fsync=off", "-c", "max_connections=300", "-c", "shared_buffers=32MB"),
        ],
        **quiet,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(f"postgresql://tester@127.0.0.1:{port}/postgres").close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.05)
        yield Cluster(port)
    finally:
        server.send_signal(signal.SIGINT)  # drops clients at once
        server.wait(30)
        shutil.rmtree(root, ignore_errors=True)
