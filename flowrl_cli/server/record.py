"""Records in the home of what was started for it: processes, and the commands that use them."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from flowrl_cli.server.address import LOOPBACK, Address
from flowrl_cli.server.machine import host_name, machine_id
from flowrl_cli.server.processes import Started, find, marked
from flowrl_cli.server.versions import is_cloud, ui_of_cloud
from flowrl_core.errors import CorruptError, InputError, StorageError
from flowrl_core.storage.atomic import write_json
from flowrl_core.storage.layout import URL_VARIABLE, Home

__all__ = ["Record", "Server", "may_execute"]


@dataclass(frozen=True)
class Server:
    """A Prefect server.

    Attributes:
        url: of its API.
        is_embedded: whether it is the home's own.
        address: the URL for browsers, if it does not follow from `url`.
        asks_for_password: whether it is known to ask for one.
    """

    url: str
    is_embedded: bool
    address: str = ""
    asks_for_password: bool = False

    @property
    def ui(self) -> str:
        """The URL to open in a browser."""
        if self.address:
            return self.address
        return ui_of_cloud(self.url) if is_cloud(self.url, {}) else self.url.removesuffix("/").removesuffix("/api")


@dataclass(frozen=True)
class Record:
    """What was started on one machine for a home: a server and its workers, or only workers of a remote server.

    Attributes:
        mark: in the environment of everything that was started under this record.
        port, host: where the server listens.
        is_fixed: whether the user asked for this port.
        asks_for_password: whether the server was started with a password, which only its environment holds.
        elsewhere: the API URL of the remote server; empty if the server is the home's own.
        pools: the pools that the workers serve; empty: all.
        keep: whether it stays up when its last user has left.
        temporary: the directory for their temporary files.
        machine, machine_name: where all this runs; the name is for display.
        processes: server and workers.
        users: the commands that use it.
        detached: the campaigns that were promised to continue without a command.
    """

    mark: str
    port: int = 0
    host: str = LOOPBACK
    is_fixed: bool = False
    asks_for_password: bool = False
    elsewhere: str = ""
    pools: tuple[str, ...] = ()
    keep: bool = False
    temporary: str = ""
    machine: str = field(default_factory=machine_id)
    machine_name: str = field(default_factory=host_name)
    processes: tuple[Started, ...] = ()
    users: tuple[Started, ...] = ()
    detached: tuple[str, ...] = ()

    @classmethod
    def new(cls, address: Address, *, asks_for_password: bool) -> Record:
        """Return a record of a server that is not started yet."""
        return cls(uuid.uuid4().hex, asks_for_password=asks_for_password).at(address)

    @classmethod
    def new_workers(cls, url: str, pools: tuple[str, ...]) -> Record:
        """Return a record of workers that are not started yet."""
        return cls(uuid.uuid4().hex, elsewhere=url, pools=pools, keep=True)

    @classmethod
    def load(cls, home: Home) -> Record | None:
        """Return the record of the home's embedded server, if there is one."""
        return _read(home.embedded)

    @classmethod
    def load_workers(cls, home: Home) -> Record | None:
        """Return the record of this machine's workers for a remote server, if there is one."""
        return _read(home.workers_record(machine_id()))

    def path(self, home: Home) -> Path:
        """Return the path of the record's file."""
        return home.workers_record(self.machine) if self.elsewhere else home.embedded

    def save(self, home: Home) -> None:
        """Write the record, for other commands and for recovery after a crash."""
        write_json(self.path(home), {**asdict(self), "url": self.server.url})

    def remove(self, home: Home) -> None:
        """Delete the record's file."""
        self.path(home).unlink(missing_ok=True)

    @property
    def is_here(self) -> bool:
        """Whether its processes belong to this machine."""
        return self.machine == machine_id()

    @property
    def address(self) -> Address:
        """The address that the home's own server listens on."""
        return Address(self.host, self.port, self.is_fixed)

    @property
    def server(self) -> Server:
        """The recorded server, alive or not."""
        if self.elsewhere:
            return Server(self.elsewhere, is_embedded=False)
        address = self.address
        return Server(address.api, is_embedded=True, address=address.ui, asks_for_password=self.asks_for_password)

    def alive(self, name: str) -> psutil.Process | None:
        """Return the process of this name if it is alive."""
        started = next((process for process in self.processes if process.name == name), None)
        return find(started, self.mark) if started else None

    def with_process(self, started: Started) -> Record:
        """Return the record with this process in place of an earlier one of the same name."""
        others = tuple(process for process in self.processes if process.name != started.name)
        return replace(self, processes=(*others, started))

    def at(self, address: Address) -> Record:
        """Return the record with another address and with no process started."""
        return replace(self, host=address.host, port=address.port, is_fixed=address.is_fixed, processes=())

    def joined(self, user: Started, *, keep: bool, campaign: str = "") -> Record:
        """Return the record with one more user, who follows the campaign, and without users that have died."""
        others = tuple(other for other in self.users if other != user and find(other))
        detached = tuple(other for other in self.detached if other != campaign)
        return replace(self, users=(*others, user), keep=self.keep or keep, detached=detached)

    def left(self, user: Started) -> Record:
        """Return the record without this user."""
        return replace(self, users=tuple(other for other in self.users if other.pid != user.pid))

    def detaching(self, campaign: str) -> Record:
        """Return the record with one more detached campaign."""
        return replace(self, detached=tuple(dict.fromkeys((*self.detached, campaign))))


def may_execute(home: Home) -> bool:
    """Whether something may be executing the home's runs, as far as this machine knows.

    False only if the embedded Prefect is all that was ever started for the home, and none of it is alive.
    """
    from flowrl_cli.server.configured import configured

    knows_others = bool(os.environ.get(URL_VARIABLE)) or any(home.root.glob("workers-*.json"))
    if knows_others or not home.prefect.is_dir():
        return True
    with contextlib.suppress(InputError):  # unreadable Prefect settings name no server
        if configured() is not None:
            return True
    try:
        record = Record.load(home)
    except StorageError:
        return True
    if record is None:
        return False
    return not record.is_here or record.alive("server") is not None or bool(marked(record.mark))


def _read(path: Path) -> Record | None:
    """Return the record that a file holds; None if there is none.

    Raises:
        CorruptError: the file is damaged.
        StorageError: this user may not read it.
    """
    if not os.path.lexists(path):
        return None
    try:
        if not path.is_file():  # reading a pipe would block
            raise ValueError("it is not a regular file")
        data: Mapping[str, Any] = json.loads(path.read_bytes())
        lists: dict[str, Any] = {name: tuple(Started(**one) for one in data[name]) for name in ("processes", "users")}
        lists |= {name: tuple(data.get(name, ())) for name in ("pools", "detached")}
        return Record(**{**{name: value for name, value in data.items() if name != "url"}, **lists})
    except FileNotFoundError:
        return None
    except PermissionError as exc:
        raise StorageError(f"{path} is not readable by this user; grant yourself access") from exc
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise CorruptError(
            f"{path}, which records what was started for this home, cannot be read ({exc}): end what runs of it "
            "(`ps -ef | grep flowrl`), then remove it"
        ) from exc
