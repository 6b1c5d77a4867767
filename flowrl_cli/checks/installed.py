"""Check that this installation is complete: a supported Python, packages, and all of its own files."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from flowrl_cli.checks.finding import Diagnosis
from flowrl_core.errors import StorageError
from flowrl_core.installation import ROOT, data

__all__ = ["FILES", "check_installation", "examine_installation"]

FILES = "files"
"""The name of the finding on FlowRL's own files."""


def check_installation() -> None:
    """Check that the installation is complete.

    Raises:
        StorageError: files are missing; the error names them.
    """
    if missing := _missing():
        raise StorageError(f"this installation of FlowRL lacks {', '.join(missing)}: {_remedy()}")


def examine_installation() -> Iterator[Diagnosis]:
    """Yield the findings of `flowrl doctor` on the installation."""
    yield _python()
    yield from _packages()
    yield _files()


def _requirements() -> list[str]:
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return requires("flowrl") or []
    except PackageNotFoundError:
        return []


def _python() -> Diagnosis:
    from importlib.metadata import PackageNotFoundError, metadata

    from packaging.specifiers import SpecifierSet

    version = ".".join(map(str, sys.version_info[:3]))
    try:
        supported = SpecifierSet(metadata("flowrl")["Requires-Python"])
    except PackageNotFoundError:
        return Diagnosis("flowrl", "wrong", "the package is not installed", "make install")
    if version in supported:
        return Diagnosis("python", "ok", version)
    return Diagnosis("python", "wrong", f"{version}, supported {supported}", f"install FlowRL with {_tested_pythons()}")


def _tested_pythons() -> str:
    from importlib.metadata import metadata

    begin = "Programming Language :: Python :: "
    versions = [line.removeprefix(begin) for line in metadata("flowrl").get_all("Classifier", []) if begin in line]
    return f"Python {' or '.join(sorted(versions))}"


def _packages() -> Iterator[Diagnosis]:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    for requirement in map(Requirement, _requirements()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        mend = f'{sys.executable} -m pip install "{requirement.name}{requirement.specifier}"'
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Diagnosis(requirement.name, "wrong", f"not installed, needs {requirement.specifier}", mend)
            continue
        if taken := _taken_instead(requirement.name):
            mend = "rename that file, or take its directory out of PYTHONPATH"
            yield Diagnosis(requirement.name, "wrong", f"{taken} is imported instead", mend)
        elif requirement.specifier.contains(found, prereleases=True):
            yield Diagnosis(requirement.name, "ok", found)
        else:
            yield Diagnosis(requirement.name, "wrong", f"{found}, supported {requirement.specifier}", mend)


def _taken_instead(distribution: str) -> str | None:
    """Return the file that shadows an installed package: it has the same name and comes first on the path."""
    from importlib.metadata import files
    from importlib.util import find_spec

    for file in files(distribution) or ():
        if len(file.parts) == 2 and file.name == "__init__.py":
            spec = find_spec(file.parts[0])
            if spec is not None and spec.origin and Path(spec.origin).resolve() != Path(str(file.locate())).resolve():
                return spec.origin
    return None


def _files() -> Diagnosis:
    if missing := _missing():
        return Diagnosis(FILES, "wrong", f"missing: {', '.join(missing)}", _remedy())
    return Diagnosis(FILES, "ok", str(ROOT))


def _missing() -> list[str]:
    """Return the required files that are missing or empty, as absolute paths."""
    return sorted({str(path) for path in _needed() if not (path.is_file() and path.stat().st_size)})


def _remedy() -> str:
    """Return how to restore missing files."""
    if (ROOT / "Makefile").is_file():
        return f"`git status` in {ROOT} shows what was removed; restore it, then `make install`"
    return f"install it again: {sys.executable} -m pip install --force-reinstall --no-deps {_origin()}"


def _origin() -> str:
    """Return the source of this installation. The name alone would not do: on PyPI it belongs to another project."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        recorded = json.loads(distribution("flowrl").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        recorded = {}
    return shlex.quote(recorded.get("url") or "flowrl-VERSION-py3-none-any.whl")


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
    from flowrl_core.llm.prompting import PROMPTS
    from flowrl_core.vocabulary.catalogue import ENVIRONMENTS, environment

    for env in map(environment, ENVIRONMENTS):
        yield from (path for path in (env.knowledge, env.transitions) if path is not None)
    for name in PROMPTS:
        yield data("llm", "prompts", f"{name}.md")


def _recorded() -> Iterator[Path]:
    """Yield the registry's migrations, and the files that the package was installed with."""
    from importlib.metadata import PackageNotFoundError, distribution

    from flowrl_core.storage.schema import HEAD

    migrations = data("storage", "migrations")
    yield migrations / "env.py"
    yield next((migrations / "versions").glob(f"{HEAD}_*.py"), migrations / "versions" / f"{HEAD}_*.py")
    try:
        flowrl = distribution("flowrl")
    except PackageNotFoundError:
        return
    if Path(str(flowrl.locate_file("flowrl_core"))).resolve() != data().resolve():
        return  # a checkout, or an installation other than the running one
    for file in flowrl.files or ():
        if file.size and file.parts[0] in ("flowrl_core", "flowrl_cli"):
            yield Path(str(flowrl.locate_file(file)))
