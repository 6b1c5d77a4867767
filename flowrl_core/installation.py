"""Where FlowRL is installed, and how its processes import its own packages `flows` and `tasks`.

Other packages often use these names too. In FlowRL's processes, an import finder that comes before all others locates
them, regardless of the working directory, PYTHONPATH and the installed packages. PYTHONPATH comes last there, so that a
user's `random.py` or `prefect.py` shadows no installed module. A process that only uses `flowrl_core` as a library
is unaffected.

    python -P .../flowrl_core/installation.py MODULE [ARGUMENT ...]

runs a module in a FlowRL process, as `python -m` would.
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

# A wheel ships it inside this package. If neither is complete, never use a foreign directory.
ROOT = _SHIPPED if _SHIPPED.is_dir() or not (_PACKAGES / "prefect.yaml").is_file() else _PACKAGES
"""The directory that holds `flows`, `tasks` and `prefect.yaml`: the working directory of runs."""

_COMMON = ("flows", "tasks")
_PLACES = {"flowrl_core": _PACKAGES, "flowrl_cli": _PACKAGES} | dict.fromkeys(_COMMON, ROOT)


class _Finder:
    """An import finder for the packages of this installation only."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of a FlowRL package; None for any other name.

        Raises:
            ModuleNotFoundError: the package is missing from this installation. No other package of that name is used.
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
    """Make `flows` and `tasks` resolve to FlowRL's packages in this process from now on. Idempotent."""
    sys.meta_path[:] = [_FINDER, *(finder for finder in sys.meta_path if finder is not _FINDER)]
    for name in _COMMON:
        # A .pth file or sitecustomize may have imported others already; whoever holds a reference keeps it.
        if name in sys.modules and not _is_ours(name, sys.modules[name]):
            for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
                del sys.modules[loaded]


def prefer_installed() -> None:
    """Move installed packages before PYTHONPATH in this process's `sys.path`. Idempotent.

    `export PYTHONPATH=$PYTHONPATH:/some/where` may add the working directory, and cluster modules add other releases.
    Packages found only on PYTHONPATH can still be imported.
    """
    given = {_absolute(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    given -= {str(_PACKAGES), str(ROOT)}  # FlowRL may be there itself, with the packages installed beside it
    sys.path.sort(key=lambda path: path in given)


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module, as `python -m` would, with this installation and interpreter."""
    # Without -P, this file's directory would come before the standard library.
    return [sys.executable, "-P", str(_HERE), module, *arguments]


def data(*parts: str) -> Path:
    """Return the path of a file or directory shipped inside `flowrl_core`."""
    # This file starts every FlowRL process, so imports that most of them do not need are deferred.
    from importlib.resources import files

    return Path(str(files("flowrl_core").joinpath(*parts)))


def enter() -> dict[str, str]:
    """A Prefect pull step: return the run's working directory on the machine that executes it."""
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
