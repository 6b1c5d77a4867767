"""Where FlowRL is installed, and processes in which the names `flows` and `tasks` are its own.

Many people have packages of these names. In a process of FlowRL's, a finder that is asked before all others says where
they are, whatever lies in the working directory, on PYTHONPATH or among the installed packages. What is on PYTHONPATH
comes last there: a person's own `random.py` or `prefect.py` takes the place of nobody's. A process that only uses
`flowrl_core` as a library keeps its own.

    python -P .../flowrl_core/installation.py MODULE [ARGUMENT ...]

runs a module in a process of FlowRL's, as `python -m` would.
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

__all__ = ["ROOT", "anchor", "command", "data", "enter", "prefer_installed"]

_HERE = Path(__file__).absolute()
_PACKAGES = _HERE.parents[1]
_SHIPPED = _HERE.with_name("root")

# A wheel has it inside this package. (Where neither is whole, nobody else's directory must be taken for ours.)
ROOT = _SHIPPED if _SHIPPED.is_dir() or not (_PACKAGES / "prefect.yaml").is_file() else _PACKAGES
"""The directory that holds `flows`, `tasks` and `prefect.yaml`: the working directory of runs."""

_COMMON = ("flows", "tasks")
_PLACES = {"flowrl_core": _PACKAGES, "flowrl_cli": _PACKAGES} | dict.fromkeys(_COMMON, ROOT)


class _Finder:
    """Finds the packages of this installation, and nothing else."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Where a package of ours is; None for all that is not ours.

        Raises:
            ModuleNotFoundError: it is not where it must be. Nobody else's is taken instead.
        """
        if name not in _PLACES:
            return None
        spec = PathFinder.find_spec(name, [str(_PLACES[name])])
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"FlowRL's package {name} is missing in {_PLACES[name]}: reinstall FlowRL", name=name
            )
        return spec


_FINDER = _Finder()


def anchor() -> None:
    """Let `flows` and `tasks` be FlowRL's in this process from now on. Safe to repeat."""
    sys.meta_path[:] = [_FINDER, *(finder for finder in sys.meta_path if finder is not _FINDER)]
    for name in _COMMON:
        # What a .pth file or a sitecustomize has imported before us stays with those who hold it.
        if name in sys.modules and not _is_ours(name, sys.modules[name]):
            for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
                del sys.modules[loaded]


def prefer_installed() -> None:
    """Let what is installed come before what is on PYTHONPATH, in this process from now on. Safe to repeat.

    `export PYTHONPATH=$PYTHONPATH:/some/where` puts the working directory there, modules of a cluster other releases.
    What was found there alone still is.
    """
    given = {_absolute(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    given -= {str(_PACKAGES), str(ROOT)}  # FlowRL itself may be there, with all that was installed beside it
    sys.path.sort(key=lambda path: path in given)


def command(module: str, *arguments: str) -> list[str]:
    """What starts a module, as `python -m` would, in a process of this very installation and interpreter."""
    # Without -P the directory of this file would come before the standard library.
    return [sys.executable, "-P", str(_HERE), module, *arguments]


def data(*parts: str) -> Path:
    """A file or directory that comes inside `flowrl_core`."""
    # As a file of its own, it starts every process of ours: what most of them need not import waits.
    from importlib.resources import files

    return Path(str(files("flowrl_core").joinpath(*parts)))


def enter() -> dict[str, str]:
    """A pull step of Prefect's: the run's working directory, wherever its machine has it."""
    anchor()
    return {"directory": str(ROOT)}


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # relative to a working directory that is gone
        return path


def _is_ours(name: str, module: ModuleType) -> bool:
    ours = ROOT / name
    places = [place for place in getattr(module, "__path__", ()) if os.path.isdir(place)]
    return ours.is_dir() and any(os.path.samefile(place, ours) for place in places)


def _run(module: str, *arguments: str) -> None:
    anchor()
    prefer_installed()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run(*sys.argv[1:])
