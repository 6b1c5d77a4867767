"""Problems that make a home unusable, as `flowrl status` and `flowrl doctor` report them."""

from __future__ import annotations

from flowrl_cli.server.output import story
from flowrl_cli.server.record import Record
from flowrl_core.errors import StorageError
from flowrl_core.storage.layout import Home
from flowrl_core.storage.room import want_to_go_on

__all__ = ["deaths", "troubles"]


def troubles(home: Home) -> list[str]:
    """Return a sentence for each dead process, and for a full disk."""
    mend = "`flowrl up`, or the campaign's own command, restarts it"
    try:
        died = [f"the {name} died: {words}. {mend}" for name, words in deaths(home).items()]
    except StorageError as exc:
        died = [str(exc)]
    full = want_to_go_on(home)
    return [full, *died] if full else died


def deaths(home: Home) -> dict[str, str]:
    """Return the processes that were started here and died without being stopped: name -> last words.

    Raises:
        StorageError: the records of what was started cannot be read.
    """
    records = [record for record in (Record.load(home), Record.load_workers(home)) if record and record.is_here]
    return {
        started.name: story(home, record, started.name)
        for record in records
        for started in record.processes
        if record.alive(started.name) is None
    }
