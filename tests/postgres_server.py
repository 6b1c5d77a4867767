"""A PostgreSQL server of one's own, from Debian's package: for tests and benchmarks, gone when they are over."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import debian
import psycopg

__all__ = ["NoPostgresError", "PostgresServer", "running"]

_START_S = 60.0
_CREATE_NO_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")
# Nothing that a test writes has to outlive the machine.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}


class NoPostgresError(Exception):
    """There is no PostgreSQL here, and none can be installed."""


@dataclass(frozen=True)
class PostgresServer:
    """A server on the loopback interface with one user, who may do everything and has a password."""

    port: int
    password: str
    user: str = "flowrl"

    def url(self, database: str, *, driver: str = "psycopg") -> str:
        """A database's URL for SQLAlchemy."""
        return f"postgresql+{driver}://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, *, template: str = "template1") -> str:
        """The name of a new database, a copy of the template."""
        name = f"d{secrets.token_hex(6)}"
        with self.connected() as connection:
            connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        with self.connected() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    @contextlib.contextmanager
    def connected(self, database: str = "postgres") -> Iterator[psycopg.Connection]:
        """A connection on which every statement is a transaction of its own."""
        url = self.url(database).replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """A fresh server for the block.

    Raises:
        NoPostgresError: in words why there is none.
    """
    programs = _programs()
    # Not pytest's directory, which nobody else may enter: the server refuses to run as root.
    directory = Path(tempfile.mkdtemp(prefix="flowrl-postgres-"))
    owner = _owner()
    if owner is not None:
        shutil.chown(directory, owner)
    try:
        password = directory / "password"
        password.write_text(secrets.token_hex(8))
        if owner is not None:
            shutil.chown(password, owner)
        server = PostgresServer(_free_port(), password.read_text())
        data, log = directory / "data", directory / "log"
        initdb = [programs / "initdb", "-D", data, "-U", server.user, "-A", "scram-sha-256", "--pwfile", password]
        _run([*initdb, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"], owner)
        settings = {**_SETTINGS, "port": str(server.port), "unix_socket_directories": ""}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", data, "-c", "listen_addresses=127.0.0.1", *options]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=directory, **_as(owner))
        try:
            _await(server, process, log)
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: who is connected is sent away
            process.wait(_START_S)
    finally:
        shutil.rmtree(directory)


def _programs() -> Path:
    """Where initdb and postgres are; installed first if they are nowhere."""
    if found := _installed():
        return found
    if not debian.can_install():
        raise NoPostgresError("no PostgreSQL in /usr/lib/postgresql or on PATH, and no apt-get as root to install it")
    # Ours is enough: the package would make and start a server of its own.
    if not _CREATE_NO_CLUSTER.exists():
        _CREATE_NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
        _CREATE_NO_CLUSTER.write_text("create_main_cluster = false\n")
    try:
        debian.install("postgresql")
    except subprocess.SubprocessError as exc:
        raise NoPostgresError(f"apt-get could not install postgresql: {exc}") from exc
    found = _installed()
    if found is None:
        raise NoPostgresError("apt-get has installed postgresql, but there is no initdb in /usr/lib/postgresql")
    return found


def _installed() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    found = versions[-1] if versions else Path(on_path) if on_path else None
    return found.parent if found else None


def _owner() -> str | None:
    """Who runs the server; None: who runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _as(owner: str | None) -> dict[str, object]:
    if owner is None:
        return {}
    return {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}


def _run(command: list[object], owner: str | None) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_START_S, cwd="/", **_as(owner))
    if done.returncode:
        raise NoPostgresError(f"{words[0]}: {done.stderr.strip()[-500:]}")


def _await(server: PostgresServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with server.connected():
                return
        except psycopg.OperationalError as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoPostgresError(f"the server did not start: {log.read_text()[-500:]}") from exc
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
