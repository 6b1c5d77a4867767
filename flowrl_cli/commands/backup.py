"""`flowrl backup` and `flowrl restore`: copy a home, and create a home from a copy."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["backup", "restore"]


def backup(target: Path, /) -> None:
    """Copy the registry, the experts and the records of this home to a new directory; campaigns may keep running.

    Parameters
    ----------
    target
        A directory that does not exist yet, outside FLOWRL_HOME.
    """
    from flowrl_core.stages.upkeep.families import FAMILIES
    from flowrl_core.storage.backup import backup as save
    from flowrl_core.storage.layout import Home
    from flowrl_core.text import counted

    home = Home.from_environment()
    copied = save(home, target, FAMILIES)
    copies = f"{counted(copied.rows, 'row')} and {counted(copied.versions, 'version')}"
    print(f"saved {copies} ({copied.bytes / 1e6:.1f} MB of files) to {target}")


def restore(source: Path, /) -> None:
    """Create a home from a backup, on the configured database.

    Parameters
    ----------
    source
        A directory created by `flowrl backup`.
    """
    from flowrl_cli.process.signals import Interrupted
    from flowrl_core.stages.upkeep.families import FAMILIES
    from flowrl_core.storage.backup import restore as fill
    from flowrl_core.storage.layout import Home
    from flowrl_core.text import counted

    home = Home.from_environment()
    try:
        copied = fill(source, home, FAMILIES)
    except Interrupted:
        if not home.registry_url.startswith("sqlite") or not home.registry.exists():
            print("Nothing was restored. Run the same command again", file=sys.stderr)
        raise
    print(f"restored {counted(copied.rows, 'row')} and {counted(copied.versions, 'version')} to {home.root}")
    print("To resume, start the campaigns again: `flowrl campaign`, or their deployments")
