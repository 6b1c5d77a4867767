"""What is checked while a campaign is followed: that server and workers are alive and the disk has room.

Dead processes are restarted a bounded number of times; a problem that cannot be repaired from here ends the command.
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
"""A process that lived this long was healthy: its death starts a new count."""
_ALONE_S = 120.0
_TELL_S = 20.0


class Care:
    """All checks, each at its own interval.

    Args:
        say: receives a message for each problem that is repaired or waited for.
    """

    def __init__(self, home: Home, server: Server, say: Callable[[str], None]) -> None:
        self._work = [(2.0, Pantry(home).look), (10.0, Attendance(server, say).look)]
        if server.is_embedded:
            self._work.insert(1, (5.0, Healing(home, say).look))
        self._next = [time.monotonic() + pause for pause, _ in self._work]

    async def take(self) -> None:
        """Run the checks that are due.

        Raises:
            NoRoomError: as `Pantry.look`.
            ServiceError: as `Healing.look` and `Attendance.look`.
        """
        for number, (pause, look) in enumerate(self._work):
            if time.monotonic() >= self._next[number]:
                await asyncio.to_thread(look)
                self._next[number] = time.monotonic() + pause


class Pantry:
    """Checks that the home's disk has room."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._was_empty = False

    def look(self) -> None:
        """Check for room; a single failure is tolerated, since a temporary file may have caused it.

        Raises:
            NoRoomError: two checks in a row found no room.
        """
        try:
            check_going_on(self._home)
            self._was_empty = False
        except NoRoomError:
            if self._was_empty:
                raise
            self._was_empty = True


class Healing:
    """Restarts a dead server and dead workers, and reports why they died.

    Args:
        say: receives a message for each death.
    """

    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self._home = home
        self._say = say
        self._deaths = {SERVER: 0, WORKERS: 0}
        self._since = dict.fromkeys(self._deaths, time.monotonic())

    def look(self) -> None:
        """Restart what has died.

        Raises:
            ServiceError: it keeps dying (the error includes its last message), or `flowrl down` stopped it.
        """
        reap()
        embedded.check_not_stopped(self._home)
        record = Record.load(self._home)
        if record is None or not record.is_here or embedded.is_being_changed(self._home):
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
            except ServiceError as exc:  # it died again meanwhile: the next look counts that
                self._say(str(exc))
            self._since.update(dict.fromkeys(dead, time.monotonic()))


class Attendance:
    """Checks that every pool has a worker.

    Args:
        say: receives one message when there is none.
    """

    def __init__(self, server: Server, say: Callable[[str], None]) -> None:
        self._server = server
        self._say = say
        self._seen = time.monotonic()
        self._told = False

    def look(self) -> None:
        """Check that each pool has a worker online, or had one recently.

        Raises:
            ServiceError: a pool has had none for two minutes; the error includes a remedy.
        """
        from httpx import HTTPError

        from tasks.orchestration.server.inventory import unattended_pools

        try:
            pools = unattended_pools()
        except (HTTPError, TimeoutError):  # another check covers whether the server answers
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
