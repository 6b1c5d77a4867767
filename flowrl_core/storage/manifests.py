"""Manifests, which show that a directory is complete: the size and SHA-256 of every file. No JAX here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from flowrl_core.errors import CorruptError, StorageError
from flowrl_core.storage.atomic import write_json

__all__ = ["FORMAT", "MANIFEST", "checksum", "flaw", "verify", "write"]

MANIFEST = "manifest.json"
FORMAT = 1


def checksum(file: Path) -> dict[str, Any]:
    """The size and SHA-256 of a file, in the manifest's format."""
    with open(file, "rb") as content:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}


def write(directory: Path, **facts: Any) -> None:
    """Write the manifest of a directory that has all its files, with JSON-ready facts besides their checksums."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    sums = {path.relative_to(directory).as_posix(): checksum(path) for path in files}
    write_json(directory / MANIFEST, {"format": FORMAT, **facts, "files": sums})


def verify(directory: Path) -> dict[str, Any]:
    """The manifest, after verifying the checksum of every file.

    Raises:
        CorruptError: the directory is missing, incomplete or changed.
        StorageError: it has the format of another FlowRL version.
    """
    manifest = _manifest(directory)
    if manifest["format"] != FORMAT:
        raise StorageError(f"{directory} has format {manifest['format']}, this FlowRL reads {FORMAT}")
    for name, expected in manifest["files"].items():
        file = directory / name
        if not file.is_file() or checksum(file) != expected:
            raise CorruptError(f"{directory}: file {name} is missing or was changed")
    return manifest


def flaw(directory: Path, *, by_size: bool = False) -> str | None:
    """What is missing or damaged in a directory, in words; None if it is intact.

    Args:
        by_size: compare only the files' sizes, which reads no file but the manifest.
    """
    try:
        if not directory.is_dir():
            return "is missing"
        files = _manifest(directory)["files"]
        for name, expected in files.items():
            file = directory / name
            if not file.is_file():
                return f"has lost its file {name}"
            if (size := file.stat().st_size) != expected["bytes"]:
                return f"has a file {name} of {size} bytes, not {expected['bytes']}"
            if not by_size and checksum(file) != expected:
                return f"has a file {name} that was changed"
    except CorruptError:
        return "has no readable manifest"
    except (OSError, KeyError, TypeError, AttributeError) as exc:
        return f"cannot be read ({getattr(exc, 'strerror', None) or exc})"
    return None


def _manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        return {**manifest, "files": dict(manifest["files"]), "format": manifest["format"]}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CorruptError(f"{directory} has no readable manifest: {exc}") from exc
