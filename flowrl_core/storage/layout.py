"""Paths: the home of a registry, and the directory of one run.

    HOME/                              $FLOWRL_HOME, or .flowrl in the working directory
      registry.sqlite                  what was decided and learned
      knowledge/<name>.toml            the knowledge bases that campaigns use
      versions/<content>/              immutable parameters, named by the hash of their content
      sealed/<family>/<digest>/        a family's prepared data, named by the hash of its inputs
      runs/<campaign>/<name>-<k>/      the k-th run of this name while in progress (beside it `<name>-<k>.lock`)
      archive/<campaign>/<name>-<k>/   the files kept after the run
      journal/<key>.json               answers of language models
      cache/  prefect/                 compiled programs, the embedded server's home
      embedded.json                    the server and workers that were started here
      workers-<machine>.json           the workers that a machine has started for a server elsewhere
      prefect-<machine>/               their Prefect home

A run without a campaign is in a directory named after its family. Asking for a path creates nothing.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from flowrl_core.errors import InputError

__all__ = ["HOME_VARIABLE", "URL_VARIABLE", "Home", "RunDirectory", "check_name"]

HOME_VARIABLE = "FLOWRL_HOME"
URL_VARIABLE = "FLOWRL_REGISTRY_URL"

_MISREAD = "?*[]\\"
"""Characters that libraries misread in a path: SQLAlchemy `?`, Orbax glob patterns, TensorStore the backslash."""


@dataclass(frozen=True)
class RunDirectory:
    """The files common to the runs of all families. `path` need not exist yet."""

    path: Path

    @property
    def config(self) -> Path:
        """The run's configuration as JSON."""
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        """The mid-run checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON line per update."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """The log that `flowrl logs` shows."""
        return self.path / "training.log"

    @property
    def owner_lock(self) -> Path:
        """The lock of the process that works on the run.

        It is beside the directory, not in it: a run is owned before its directory is published and until it is
        removed.
        """
        return self.path.with_name(self.path.name + ".lock")


@dataclass(frozen=True)
class Home:
    """The directory of one registry and everything that belongs to it; all campaigns of a home share the registry.

    Raises:
        InputError: the root is a file or a broken link, or below one, or below a missing working or home directory; it
            or its nearest existing parent is inaccessible to this user; or libraries would misread its name.
    """

    root: Path

    def __post_init__(self) -> None:
        try:
            root = Path(os.path.abspath(Path(self.root).expanduser()))
        except (OSError, RuntimeError) as exc:  # the working directory is gone, or `~` has no user
            remedy = f"Set {HOME_VARIABLE} to an absolute path"
            raise InputError(HOME_VARIABLE, f"{self.root} is below a directory that does not exist", remedy) from exc
        object.__setattr__(self, "root", root)
        _check_root(self.root)

    @classmethod
    def from_environment(cls) -> Home:
        """The home that FLOWRL_HOME names, else `.flowrl` in the working directory."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or ".flowrl"))

    @property
    def _stores(self) -> tuple[Path, ...]:
        return (self.versions, self.sealed, self.runs, self.archive, self.knowledge, self.journal, self.cache)

    def check_writable(self) -> None:
        """Check that this user can write or create the home, and that its directories are directories.

        Raises:
            InputError: it cannot be written; the message names the path.
        """
        for path in (*self._stores, self.prefect):
            if os.path.lexists(path) and not path.is_dir():
                what = (
                    f"a link to {path.readlink()}, which is not a directory" if path.is_symlink() else "not a directory"
                )
                raise InputError(HOME_VARIABLE, f"{path} is {what}", "Move it away, or restore the directory")
        nearest = _nearest(self.root)
        for path in (
            nearest,
            *(part for part in (self.registry, *self._stores) if nearest == self.root and os.path.exists(part)),
        ):
            if not os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0)):
                remedy = (
                    f"Grant yourself access, or set {HOME_VARIABLE} to a directory that you may write. What is there "
                    "can be read: `flowrl status`, `experts`, `logs`, `backup`"
                )
                raise InputError(HOME_VARIABLE, f"{path} cannot be written", remedy)

    @property
    def belongings(self) -> list[str]:
        """Words for the contents of the home that only a registry creates; empty if there are none."""
        words = {self.versions: "parameters", self.runs: "runs", self.archive: "records of runs"}
        return [f"{path.name}/ ({what})" for path, what in words.items() if _holds_directories(path)]

    @property
    def registry(self) -> Path:
        """The registry's SQLite file."""
        return self.root / "registry.sqlite"

    @property
    def registry_url(self) -> str:
        """The registry's database URL: FLOWRL_REGISTRY_URL, else the SQLite file of this home."""
        return os.environ.get(URL_VARIABLE) or f"sqlite:///{self.registry}"

    @property
    def versions(self) -> Path:
        """The store of parameters."""
        return self.root / "versions"

    @property
    def versions_lock(self) -> Path:
        """The lock held while reusing an existing version and while removing one."""
        return self.root / "versions.lock"

    @property
    def sealed(self) -> Path:
        """The sealed directories of all families."""
        return self.root / "sealed"

    @property
    def knowledge(self) -> Path:
        """The knowledge bases that campaigns use: `flowrl campaign` copies them here, one for each campaign."""
        return self.root / "knowledge"

    @property
    def runs(self) -> Path:
        """The runs in progress."""
        return self.root / "runs"

    @property
    def archive(self) -> Path:
        """The kept files of ended runs."""
        return self.root / "archive"

    @property
    def journal(self) -> Path:
        """The answers of language models, shared by all campaigns."""
        return self.root / "journal"

    @property
    def cache(self) -> Path:
        """Compiled programs."""
        return self.root / "cache"

    @property
    def prefect(self) -> Path:
        """The embedded Prefect's home."""
        return self.root / "prefect"

    @property
    def embedded(self) -> Path:
        """The record of the server and workers that were started for this home."""
        return self.root / "embedded.json"

    def workers_record(self, machine: str) -> Path:
        """The record of the workers that were started on a machine for a server elsewhere."""
        return self.root / f"workers-{_component('machine', machine)}.json"

    def workers_prefect(self, machine: str) -> Path:
        """The Prefect home of those workers."""
        return self.root / f"prefect-{_component('machine', machine)}"

    def run_directory(self, group: str, name: str, ordinal: int) -> RunDirectory:
        """The directory of the `ordinal`-th run of this name while it is in progress.

        Args:
            group: its campaign, or its family if it has no campaign.
        """
        return RunDirectory(self.runs / _component("campaign", group) / f"{_component('name', name)}-{ordinal}")

    def archived_run(self, group: str, name: str, ordinal: int) -> RunDirectory:
        """The directory of that run's kept files after its end."""
        return RunDirectory(self.archive / _component("campaign", group) / f"{_component('name', name)}-{ordinal}")

    def sealed_directory(self, family: str, digest: str) -> Path:
        """The directory of the family's prepared data for the inputs with this hash."""
        return self.sealed / _component("family", family) / _component("inputs", digest)

    def knowledge_file(self, name: str) -> Path:
        """The knowledge base of this file name; not a path, as parameters can only name files in the home.

        Raises:
            InputError: it is not the name of a TOML file.
        """
        if "/" in name or "\\" in name or not name.endswith(".toml"):
            remedy = (
                f"Put the file into {self.knowledge} and give its name, or start with `flowrl campaign --knowledge`"
            )
            raise InputError("knowledge", f"{name!r} is not the name of a TOML file", remedy)
        return self.knowledge / _component("knowledge", name)

    def version(self, content: str) -> Path:
        """The directory of the parameters with this content hash."""
        return self.versions / _component("version", content)


def check_name(field: str, path: Path) -> None:
    """Check that no library that reads or writes below this path misreads it.

    Raises:
        InputError: libraries would look elsewhere, or cannot represent the path.
    """
    if misread := [character for character in _MISREAD if character in str(path)]:
        problem = f"the path {path} contains {' '.join(misread)}, which databases and checkpoints cannot handle"
        raise InputError(field, problem, f"Set {field} to a directory whose path has none of {' '.join(_MISREAD)}")
    # C++ libraries read names as UTF-8, whatever the locale's encoding is.
    if os.fsencode(path) != str(path).encode("utf-8", "replace"):
        problem = f"the path {str(path)!r} is not valid UTF-8, or is read as {sys.getfilesystemencoding()} here"
        raise InputError(field, problem, f"Set {field} to one that is, and LC_ALL=C.UTF-8")


def _component(field: str, name: str) -> str:
    """The name, if it is a single path component that every file system accepts; else raises InputError."""
    is_printable = all(unicodedata.category(c)[0] != "C" for c in name)
    if not name or name.startswith(".") or "/" in name or "\\" in name or not is_printable or len(name.encode()) > 200:
        raise InputError(field, f"{name!r} is not a valid directory name", "Use letters, digits, - and _")
    return name


def _holds_directories(path: Path) -> bool:
    try:
        return any(entry.is_dir() for entry in os.scandir(path))
    except OSError:
        return False


def _check_root(root: Path) -> None:
    remedy = f"Set {HOME_VARIABLE} to a directory that you can write"
    check_name(HOME_VARIABLE, root)
    nearest = _nearest(root)
    if nearest.is_symlink() and not nearest.exists():
        problem = f"{nearest} is a link to {nearest.readlink()}, which does not exist"
        raise InputError(HOME_VARIABLE, problem, remedy)
    if not nearest.is_dir():
        raise InputError(HOME_VARIABLE, f"{nearest} is a file, so {root} cannot be the home", remedy)
    if not os.access(nearest, os.X_OK | (os.R_OK if nearest == root else 0)):
        raise InputError(HOME_VARIABLE, f"{nearest} cannot be read", remedy)


def _nearest(root: Path) -> Path:
    """The root, or its nearest existing parent; os.path functions do not raise where access is denied."""
    nearest = root
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    return nearest
