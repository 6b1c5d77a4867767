"""The home's record of its embedded Prefect: address, processes, and who uses it."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, replace

import psutil

from flowrl_cli.processes import Started, find
from flowrl_core.storage.atomic import write_json
from flowrl_core.storage.layout import Home

__all__ = ["Record", "Server"]


@dataclass(frozen=True)
class Server:
    """A Prefect server: the URL of its API, and whether it is the home's embedded one."""

    url: str
    is_embedded: bool

    @property
    def ui(self) -> str:
        """The address a person opens."""
        return self.url.removesuffix("/").removesuffix("/api")


@dataclass(frozen=True)
class Record:
    """What was started for a home.

    Attributes:
        mark: in the environment of everything that was started under this record.
        port: of the server.
        keep: stays up when its last user has left.
        processes: server and workers.
        users: the commands that use it.
    """

    mark: str
    port: int
    keep: bool = False
    processes: tuple[Started, ...] = ()
    users: tuple[Started, ...] = ()

    @classmethod
    def new(cls, port: int) -> Record:
        """A record of nothing yet."""
        return cls(uuid.uuid4().hex, port)

    @classmethod
    def load(cls, home: Home) -> Record | None:
        """The home's record, if there is one."""
        try:
            data = json.loads(home.embedded.read_text())
        except FileNotFoundError:
            return None
        return cls(
            data["mark"],
            data["port"],
            data["keep"],
            tuple(Started(**process) for process in data["processes"]),
            tuple(Started(**process) for process in data["users"]),
        )

    def save(self, home: Home) -> None:
        """Write it for others, and for after a crash."""
        write_json(home.embedded, {**asdict(self), "url": self.server.url})

    @property
    def server(self) -> Server:
        """The server it tells of, alive or not."""
        return Server(f"http://127.0.0.1:{self.port}/api", is_embedded=True)

    def alive(self, name: str) -> psutil.Process | None:
        """The process of this name if it lives."""
        started = next((process for process in self.processes if process.name == name), None)
        return find(started, self.mark) if started else None

    def with_process(self, started: Started) -> Record:
        """With this process in the place of an earlier one of its name."""
        others = tuple(process for process in self.processes if process.name != started.name)
        return replace(self, processes=(*others, started))

    def moved(self, port: int) -> Record:
        """The same on another port, with nothing started there yet."""
        return replace(self, port=port, processes=())

    def joined(self, user: Started, *, keep: bool) -> Record:
        """With one more user; users that have died are forgotten."""
        others = tuple(other for other in self.users if other != user and find(other))
        return replace(self, users=(*others, user), keep=self.keep or keep)

    def left(self, user: Started) -> Record:
        """Without this user."""
        return replace(self, users=tuple(other for other in self.users if other.pid != user.pid))
