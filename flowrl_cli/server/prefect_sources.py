"""Read the user's Prefect settings and where they come from; errors name the variable or file.

Prefect reads them when it is imported, and its own error names neither. The places are those of Prefect 3.8, in its
order: variables, `.env`, `prefect.toml` and `pyproject.toml` of the working directory, the active profile.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowrl_cli.checks.variables import shown
from flowrl_core.errors import InputError
from flowrl_core.toml_files import read_toml
from tasks.orchestration.server.prefect_settings import is_prefects, variable_of

if TYPE_CHECKING:
    from prefect.settings import Settings

__all__ = ["Setting", "found_in_files", "found_settings", "read_settings"]

_PROFILE = "PREFECT_PROFILE"
_PROFILES = "PREFECT_PROFILES_PATH"
_MOST_PLACES = 5


@dataclass(frozen=True)
class Setting:
    """A setting that the user has made.

    Attributes:
        variable: the environment variable for this setting.
        where: the source, as the user wrote it.
        forget: an instruction that removes the setting.
    """

    variable: str
    value: object
    where: str
    forget: str


def found_settings() -> list[Setting]:
    """Return all settings that are made, those of higher precedence first.

    Raises:
        InputError: a file cannot be read, or the profile does not exist.
    """
    return [*_of_environment(), *found_in_files()]


def found_in_files() -> list[Setting]:
    """Return the settings of files and of the active profile alone.

    Raises:
        InputError: as `found_settings`.
    """
    return [*_of_files(), *_of_profile()]


def read_settings() -> Settings:
    """Return Prefect's settings as Prefect reads them now; importing it takes two seconds.

    Raises:
        InputError: Prefect cannot read them; the error names the variable or file.
    """
    found = found_settings()
    try:
        # Prefect prints the same problem in its own words.
        with contextlib.redirect_stderr(io.StringIO()):
            from prefect.settings import Settings

            return Settings()
    except ImportError:
        raise
    except Exception as exc:  # a file may hold anything that Prefect does not expect
        raise _refusal(exc, found) from exc


def _of_environment() -> Iterator[Setting]:
    for name, value in os.environ.items():
        if is_prefects(name):
            yield Setting(name.upper(), value, name, f"unset {name}")


def _of_files() -> Iterator[Setting]:
    for name, value in _dotenv().items():
        if is_prefects(name):
            path = Path(".env").absolute()
            yield Setting(name.upper(), value, f"{name} in {path}", f"remove {name} from {path}")
    for name, header in (("prefect.toml", ()), ("pyproject.toml", ("tool", "prefect"))):
        path = Path(name).absolute()
        if path.exists():
            table = _table(path, read_toml(path), header)
            yield from _of_table(path, header, (), table)


def _of_table(
    path: Path, header: tuple[str, ...], names: tuple[str, ...], table: Mapping[str, Any]
) -> Iterator[Setting]:
    where = ".".join((*header, *names))
    group = f"[{where}] in {path}" if where else str(path)
    for name, value in table.items():
        forget = f"remove {name} from {group}"
        yield Setting(variable_of(".".join((*names, name))), value, f"{name} of {group}", forget)
        if isinstance(value, dict):
            yield from _of_table(path, header, (*names, name), value)


def _of_profile() -> Iterator[Setting]:
    path = _profiles_path()
    content = read_toml(path) if path.exists() else {}
    profiles = _table(path, content, ("profiles",))
    name = os.environ.get(_PROFILE) or content.get("active")
    if name is None or name not in profiles:
        _check_prefects_own(name, path, profiles)
        return
    for variable, value in _table(path, content, ("profiles", name)).items():
        where = f"{variable} in Prefect's profile {name} in {path}"
        yield Setting(variable, value, where, f"`prefect --profile {name} config unset {variable}`")


def _check_prefects_own(name: object, path: Path, profiles: Mapping[str, Any]) -> None:
    """Reject an unknown profile: Prefect would only warn and run without a server. Its own need not be in the file."""
    spec = importlib.util.find_spec("prefect")
    own = read_toml(Path(str(spec.origin)).with_name("settings") / "profiles.toml") if spec else {}
    known = sorted({*own.get("profiles", {}), *profiles})
    if name is None or name in known:
        return
    field = _PROFILE if os.environ.get(_PROFILE) else f"active in {path}"
    problem = f"{path} has no profile {name!r}" if path.exists() else f"there is no profile {name!r}, and no {path}"
    raise InputError(field, problem, f"Correct it: known profiles are {', '.join(known)}")


def _profiles_path() -> Path:
    if named := os.environ.get(_PROFILES) or _dotenv().get(_PROFILES):
        return Path(named)
    for setting in _of_files():
        if setting.variable == _PROFILES and setting.value:
            return Path(str(setting.value))
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"


def _dotenv() -> Mapping[str, str | None]:
    path = Path(".env").absolute()
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        return dotenv_values(path, encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise InputError(str(path), f"cannot be read by Prefect ({exc})", "Correct the file") from exc


def _table(path: Path, content: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the table of this name; empty if there is none."""
    found: Any = content
    for name in names:
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise InputError(str(path), f"{'.'.join(names)} is not a table", "Correct the file")
    return dict(found)


def _refusal(exc: Exception, found: list[Setting]) -> InputError:
    """Return Prefect's error about one of these settings, with the names that the user wrote."""
    from pydantic import ValidationError

    problem, name, given = " ".join(str(exc).split()), "", None
    if isinstance(exc, ValidationError):
        first = exc.errors()[0]
        problem, given = first["msg"].removeprefix("Value error, "), first["input"]
        name = str(first["loc"][0]) if first["loc"] else ""
    elif 'field "' in problem:  # a pydantic error about a settings source
        name, problem = problem.partition('field "')[2].partition('"')[0], "it is not JSON"
    for setting in found if name else ():
        # In a list, one member is wrong.
        is_meant = setting.variable.endswith(f"_{name.upper()}") and (given is None or str(given) in str(setting.value))
        if is_meant:
            value = shown(setting.variable, repr(setting.value))
            remedy = f"Correct it, or {setting.forget}"
            return InputError(setting.where, f"{value} cannot be read by Prefect ({problem})", remedy)
    places = [setting.where for setting in found if setting.variable not in ("PREFECT_HOME", _PROFILE, _PROFILES)]
    remedy = f"Correct {', '.join(places[:_MOST_PLACES])}"
    return InputError("Prefect's settings", f"cannot be read by Prefect ({problem})", remedy)
