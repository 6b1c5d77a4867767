"""The fingerprint of a learner's files: shapes, versions, device, settings, and the traced code."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import jax

from flowrl_core.compiled.numerics import compiler_settings, pin, undecided
from flowrl_core.digest import digest
from flowrl_core.learning.shapes import Shapes
from flowrl_core.vocabulary.catalogue import environment

__all__ = ["code_digest", "fingerprint", "import_closure"]

_FUNCTIONS = "flowrl_core.compiled.functions"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def fingerprint(shapes: Shapes) -> str:
    """Return the fingerprint of a learner's files as sixteen hex digits; each has a directory of its own.

    It is valid only for pinned options, so this function pins them before it asks for a device: every process that
    computes calls it first.

    Raises:
        InputError: an option of JAX or XLA_FLAGS cannot have the value it must have.
    """
    pin()
    device = jax.devices()[0]
    packages = (*_PACKAGES, *environment(shapes.env).packages)
    return digest(
        {
            "shapes": asdict(shapes),
            "packages": {name: importlib.metadata.version(name) for name in packages},
            "code": _code(shapes.env),
            "device": [device.platform, device.device_kind, device.client.platform_version, platform.machine(), _cpu()],
            "settings": compiler_settings(),
            "undecided": undecided(),
        }
    )


@functools.cache
def _code(env: str) -> str:
    """Return the hash of the code traced for an environment: the learner's functions and the environment's adapter."""
    return code_digest([_FUNCTIONS, environment(env).traced])


def code_digest(modules: Iterable[str]) -> str:
    """Return the hash of the sources of these modules and of all first-party modules that they import, by content."""
    sources = sha256()
    for name, path in sorted(import_closure(modules).items()):
        sources.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return sources.hexdigest()


def import_closure(modules: Iterable[str]) -> dict[str, Path]:
    """Return the files of these modules and of all modules they import, directly or not, by module name.

    Only modules of the top-level packages of `modules` count: others depend on their release, which is recorded
    separately. Imports for type checking alone are left out; imports inside functions count. Nothing is imported.
    """
    wanted = list(modules)
    packages = {name.partition(".")[0] for name in wanted}
    found: dict[str, Path] = {}
    while wanted:
        name = wanted.pop()
        if name in found or name.partition(".")[0] not in packages or (path := _file_of(name)) is None:
            continue
        found[name] = path
        parent = name.rpartition(".")[0]
        wanted.append(parent)  # a package's own code runs first
        package = name if path.name == "__init__.py" else parent
        wanted += _imports(ast.parse(path.read_bytes()).body, package.split("."))
    return found


def _file_of(module: str) -> Path | None:
    """Return the source of a module; None if the name is not a module, such as a name imported from one."""
    top, *parts = module.split(".")
    source, directories = _top_level(top)
    if not parts:
        return source
    places = (directory.joinpath(*parts) for directory in directories)
    files = (path for place in places for path in (place / "__init__.py", place.with_suffix(".py")))
    return next(filter(Path.is_file, files), None)


@functools.cache
def _top_level(name: str) -> tuple[Path | None, tuple[Path, ...]]:
    """Return a top-level module's source (None for a package without `__init__.py`), and a package's directories."""
    spec = importlib.util.find_spec(name) if name else None
    if spec is None:
        return None, ()
    return Path(spec.origin) if spec.origin else None, tuple(map(Path, spec.submodule_search_locations or ()))


def _imports(statements: Iterable[ast.stmt], package: Sequence[str]) -> Iterator[str]:
    """Yield all names that the code imports; each NAME of `from MODULE import NAME` counts as a possible module."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")):
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from _imports(getattr(node, block, ()), package)


def _cpu() -> str:
    """Return the processor's model and features: code compiled for another one may not run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    lines = {line for line in text.splitlines() if line.startswith(("model name", "flags", "Features"))}
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()
