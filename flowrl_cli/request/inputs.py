"""Input that several commands share: a knowledge base, the name of a skill or of a campaign."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from flowrl_core.errors import CorruptError, InputError, StorageError
from flowrl_core.nearest import remedy_for
from flowrl_core.refusals import shown
from flowrl_core.storage.layout import URL_VARIABLE

if TYPE_CHECKING:
    from flowrl_core.skills.knowledge import Knowledge
    from flowrl_core.storage.layout import Home
    from flowrl_core.storage.registry import Registry

__all__ = [
    "DEFAULT_ENV",
    "check_known",
    "check_registry",
    "existing_registry",
    "open_knowledge",
    "registry_uuid",
]

DEFAULT_ENV = "craftax-classic"


def check_known(field: str, kind: str, name: str, known: Collection[str]) -> None:
    """Check that the name is known.

    Raises:
        InputError: it is not; the error suggests the nearest names.
    """
    if name not in known:
        raise InputError(field, f"there is no {kind} {shown(name)}", remedy_for(name, known))


def open_knowledge(env: str | None, source: str) -> Knowledge:
    """Return the knowledge base `source` (a file or a shipped one's name; empty: the environment's shipped one).

    Raises:
        InputError: the environment or file does not exist, the file is invalid, or it is for another environment.
    """
    from flowrl_core.skills.knowledge import load_knowledge, shipped
    from flowrl_core.vocabulary.catalogue import vocabulary

    if env is not None:
        vocabulary(env)
    knowledge = load_knowledge(source or shipped(env or DEFAULT_ENV))
    if env is not None and knowledge.env != env:
        raise InputError("env", f"{source} is for {knowledge.env!r}, not {env!r}", f"Use --env {knowledge.env}")
    return knowledge


def existing_registry() -> tuple[Home, Registry | None]:
    """Return the home and its registry, for reading; None if no campaign was ever started. Creates and changes nothing.

    Raises:
        InputError: the home, or the database that FLOWRL_REGISTRY_URL names, cannot be used.
        StorageError: the registry cannot be used.
    """
    from flowrl_core.storage.layout import Home

    home = Home.from_environment()
    return home, _read(home)


def check_registry(home: Home) -> None:
    """Check that the database that FLOWRL_REGISTRY_URL names, if any, can be queried.

    Raises:
        InputError: it cannot; nothing was started.
    """
    if os.environ.get(URL_VARIABLE) and (registry := _read(home)) is not None:
        registry.close()


def registry_uuid(home: Home) -> str | None:
    """Return the uuid of the home's registry; None if there is none yet, or it cannot be read."""
    from flowrl_core.errors import FlowRLError
    from flowrl_core.storage.registry import Registry

    with contextlib.suppress(FlowRLError):
        registry = Registry.read(home)
        if registry is not None:
            with registry:
                return registry.uuid
    return None


def _read(home: Home) -> Registry | None:
    from flowrl_core.storage.registry import Registry

    try:
        return Registry.read(home)
    except StorageError as exc:
        if isinstance(exc, CorruptError) or not os.environ.get(URL_VARIABLE):
            raise
        raise InputError(URL_VARIABLE, str(exc), f"Correct or unset {URL_VARIABLE}") from exc
