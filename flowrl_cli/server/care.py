"""What a campaign needs while it is looked at: a server and workers that live, and room on the disk.

What has died is started again a bounded number of times; what cannot be mended from here ends the command.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from flowrl_cli.server import embedded
from flowrl_cli.server.launch import SERVER, WORKERS
from flowrl_cli.server.output import story
from flowrl_cli.server.processes import reap
from flowrl_cli.server.record import Record, Server
from flowrl_core.errors import NoRoomError, ServiceError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.room import check_going_on

__all__ = ["Attendance", "Care", "Healing", "Pantry"]

_MOST_DEATHS = 4
_HEALTHY_S = 60.0
"""What has lived for so long was well: its death begins a new count."""
_ALONE_S = 120.0
_TELL_S = 20.0


class Care:
    """All of it, each at its own pace.

    Args:
        say: told what goes wrong and is mended or waited for.
    """

    def __init__(self, home: Home, server: Server, say: Callable[[str], None]) -> None:
        self._work = [(2.0, Pantry(home).look), (10.0, Attendance(server, say).look)]
        if server.is_embedded:
            self._work.insert(1, (5.0, Healing(home, say).look))
        self._next = [time.monotonic() + pause for pause, _ in self._work]

    async def take(self) -> None:
        """Do what is due.

        Raises:
            NoRoomError: as `Pantry.look`.
            ServiceError: as `Healing.look` and `Attendance.look`.
        """
        for number, (pause, look) in enumerate(self._work):
            if time.monotonic() >= self._next[number]:
                await asyncio.to_thread(look)
                self._next[number] = time.monotonic() + pause


class Pantry:
    """Looks whether the home has room left."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._was_empty = False

    def look(self) -> None:
        """Nothing, if there is room, or was the last time.

        Raises:
            NoRoomError: there is none for the second time: it was no file that has gone again.
        """
        try:
            check_going_on(self._home)
            self._was_empty = False
        except NoRoomError:
            if self._was_empty:
                raise
            self._was_empty = True


class Healing:
    """Starts again what has died, and says of what.

    Args:
        say: told each death.
    """

    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self._home = home
        self._say = say
        self._deaths = {SERVER: 0, WORKERS: 0}
        self._since = dict.fromkeys(self._deaths, time.monotonic())

    def look(self) -> None:
        """Start again what has died.

        Raises:
            ServiceError: it dies again and again (its last error is told), or somebody has stopped it on purpose.
        """
        reap()
        record = Record.load(self._home)
        if record is None:
            raise ServiceError(
                "server, workers and runs were stopped by `flowrl down`. Run the same command again to resume"
            )
        if not record.is_here or embedded.is_being_changed(self._home):
            return
        dead = [name for name in self._deaths if record.alive(name) is None]
        for name in dead:
            was_well = time.monotonic() - self._since[name] > _HEALTHY_S
            self._deaths[name] = 1 if was_well else self._deaths[name] + 1
            told = f"the {name} died: {story(self._home, record, name)}"
            if self._deaths[name] == _MOST_DEATHS:
                raise ServiceError(
                    f"{told}. That was the {_MOST_DEATHS}th time in a row. Nothing that was learned is lost: fix "
                    "the cause and run the same command again"
                )
            self._say(f"{told}; restarted")
        if dead:
            try:
                embedded.heal(self._home)
            except ServiceError as exc:  # died again meanwhile: the next look counts it
                self._say(str(exc))
            self._since.update(dict.fromkeys(dead, time.monotonic()))


class Attendance:
    """Looks whether there are workers to execute anything.

    Args:
        say: told once when there are none.
    """

    def __init__(self, server: Server, say: Callable[[str], None]) -> None:
        self._server = server
        self._say = say
        self._seen = time.monotonic()
        self._told = False

    def look(self) -> None:
        """Nothing, if each pool has a worker that is online, or had one a while ago.

        Raises:
            ServiceError: one has had none for two minutes; what to do is told.
        """
        from httpx import HTTPError

        from tasks.orchestration.server.inventory import unattended_pools

        try:
            pools = unattended_pools()
        except (HTTPError, TimeoutError):  # whether the server answers is looked at elsewhere
            return
        alone = time.monotonic() - self._seen
        if not pools:
            self._seen, self._told = time.monotonic(), False
            return
        names = f"pool{'s' if len(pools) > 1 else ''} {' and '.join(pools)}"
        told = f"no worker of {self._server.url} is online for the {names}"
        start = "see `flowrl doctor`" if self._server.is_embedded else "`flowrl up` starts this machine's workers"
        if alone > _ALONE_S:
            raise ServiceError(
                f"{told}, for {alone:.0f} s: {start}. The campaign stays submitted; the same command attaches to it"
            )
        if alone > _TELL_S and not self._told:
            self._told = True
            self._say(f"{told}, so nothing can be executed: {start}. Waiting {_ALONE_S:.0f} s for one")
