"""Whether this installation has all the files that its processes need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from flowrl_core.errors import InputError, StorageError
from flowrl_core.installation import ROOT, data

__all__ = ["check_installation", "missing_files", "remedy"]


def check_installation() -> None:
    """Nothing, if all is there.

    Raises:
        StorageError: files are missing, by name.
    """
    if missing := missing_files():
        raise StorageError(f"this installation of FlowRL lacks {', '.join(missing)}: {remedy()}")


def missing_files() -> list[str]:
    """The files that are needed and not there, or empty, as absolute paths."""
    return sorted({str(path) for path in _needed() if not (path.is_file() and path.stat().st_size)})


def remedy() -> str:
    """What brings missing files back."""
    if (ROOT / "Makefile").is_file():
        return f"`git status` in {ROOT} shows what was removed; restore it, then `make install`"
    return f"install it again: {sys.executable} -m pip install --force-reinstall --no-deps flowrl"


def _needed() -> Iterator[Path]:
    yield ROOT / "prefect.yaml"
    for package in ("flows", "tasks", "tasks/orchestration"):
        yield ROOT / package / "__init__.py"
    yield from _entrypoints()
    yield from _learning()
    yield from _recorded()


def _entrypoints() -> Iterator[Path]:
    import yaml

    deployments = ROOT / "prefect.yaml"
    if deployments.is_file():
        for entry in (yaml.safe_load(deployments.read_text(encoding="utf-8")) or {}).get("deployments", ()):
            yield ROOT / entry["entrypoint"].partition(":")[0]


def _learning() -> Iterator[Path]:
    from flowrl_core.envs.vocabularies import ENVIRONMENTS
    from flowrl_core.llm.prompting import PROMPTS
    from flowrl_core.skills.experience import experience_file
    from flowrl_core.skills.knowledge import shipped

    for env in ENVIRONMENTS:
        try:
            yield shipped(env)
        except InputError:
            yield data("knowledge", f"{env.replace('-', '_')}.toml")
        yield experience_file(env)
    for name in PROMPTS:
        yield data("llm", "prompts", f"{name}.md")


def _recorded() -> Iterator[Path]:
    """The registry's migrations, and what the package was installed with."""
    from importlib.metadata import PackageNotFoundError, distribution

    from flowrl_core.storage.schema import HEAD

    migrations = data("storage", "migrations")
    yield migrations / "env.py"
    yield next((migrations / "versions").glob(f"{HEAD}_*.py"), migrations / "versions" / f"{HEAD}_*.py")
    try:
        flowrl = distribution("flowrl")
    except PackageNotFoundError:
        return
    for file in flowrl.files or ():
        if file.size and file.parts[0] in ("flowrl_core", "flowrl_cli"):
            yield Path(str(flowrl.locate_file(file)))
