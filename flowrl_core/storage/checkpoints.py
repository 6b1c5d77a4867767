"""Trees of arrays on disk: written atomically, checksummed, restored bit for bit.

A checkpoint is a directory: `tree/` as Orbax writes it, and `manifest.json` with the size and SHA-256 of every file,
the leaves, and the caller's metadata. It is written beside its place, made durable and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from flowrl_core.errors import ConflictError, CorruptError, FlowRLError, StorageError
from flowrl_core.storage import manifests
from flowrl_core.storage.atomic import (
    crash_point,
    is_temporary,
    publish_directory,
    remove_directory,
    temporary_beside,
)
from flowrl_core.storage.manifests import verify

__all__ = ["Anew", "TrainCheckpoints", "content_hash", "load_tree", "save_tree"]

logger = logging.getLogger(__name__)

LeafPath = tuple[str, ...]
_TREE = "tree"
_STEP = re.compile(r"step-(\d{12})")
_DICT_KEY = "/"
"""Marks a part of a leaf's path as a dict key: only trees of dicts can be loaded without a template."""


def save_tree(directory: Path, tree: Any, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a tree to `directory`, which does not exist yet.

    Args:
        tree: nested dicts, tuples, NamedTuples or dataclasses of numpy or JAX arrays.
        metadata: JSON-ready data stored with it.

    Raises:
        ConflictError: `directory` exists.
        StorageError: it cannot be written; nothing is left behind.
    """
    leaves = _leaves(tree)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(directory)
    temporary.mkdir()
    try:
        # Orbax refuses empty arrays; their shape is all there is to store.
        _write_arrays(temporary / _TREE, {_file_name(p): a for p, a in leaves.items() if a.size})
        described = [{"path": p, "dtype": a.dtype.name, "shape": a.shape} for p, a in leaves.items()]
        facts = {"metadata": dict(metadata or {}), "leaves": described, "empty": _empty_nodes(tree)}
        manifests.write(temporary, **facts)
        crash_point("tree_before_rename")
        publish_directory(temporary, directory)
    except FlowRLError:
        raise
    except Exception as exc:
        raise StorageError(
            f"{directory} cannot be written: {exc}; free some space or grant access, then try again"
        ) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    crash_point("tree_after_rename")


@dataclass(frozen=True)
class Anew:
    """What takes the place of parts of a tree that an earlier version wrote with another structure.

    Attributes:
        parts: the parts that may begin anew, each by its path, such as ("learner", "playing").
        tree: returns a new tree of the template's structure.
    """

    parts: Collection[tuple[str, ...]]
    tree: Callable[[], Any]


def load_tree(
    directory: Path, template: Any = None, *, below: tuple[str, ...] = (), anew: Anew | None = None
) -> tuple[Any, dict[str, Any]]:
    """The tree and its metadata, after verifying its checksums.

    Args:
        template: a tree of the same structure, whose leaves give shape and dtype. Leaves come back as numpy arrays,
            or as JAX arrays where the template has those. None: nested dicts, if the tree consists of dicts alone.
        below: path to a part of the tree; only that part is read.
        anew: what replaces parts that do not fit the template.

    Raises:
        CorruptError: missing, incomplete, or a checksum is wrong.
        StorageError: the tree does not fit the template, or has the format of another FlowRL version.
    """
    manifest = verify(directory)
    described = [(tuple(leaf["path"]), tuple(leaf["shape"]), np.dtype(leaf["dtype"])) for leaf in manifest["leaves"]]
    shapes = {path: (shape, dtype) for path, shape, dtype in described if _is_below(path, below)}
    try:
        stored = _read_arrays(directory / _TREE, [_file_name(p) for p, (shape, _) in shapes.items() if 0 not in shape])
    except Exception as exc:
        raise CorruptError(f"checkpoint {directory} cannot be read: {exc}") from exc
    leaves = {p: stored[_file_name(p)] if 0 not in shape else np.zeros(shape, t) for p, (shape, t) in shapes.items()}
    leaves = {path[len(below) :]: leaf for path, leaf in leaves.items()}
    if template is None:
        empty = [(path[len(below) :], node) for path, node in manifest["empty"] if _is_below(path, below)]
        return _nested(directory, leaves, empty), manifest["metadata"]
    return _like(directory, leaves, template, anew), manifest["metadata"]


def content_hash(tree: Any) -> str:
    """The hash (32 hex digits) of a tree's paths, dtypes, shapes and bytes; the order of dict keys does not matter."""
    total = hashlib.sha256()
    for path, array in sorted(_leaves(tree).items()):
        total.update(json.dumps([path, array.dtype.name, array.shape]).encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:32]


class TrainCheckpoints:
    """The mid-run checkpoints of one run; the last `keep` are kept. Only the run's owner may use it.

    Args:
        anew: what replaces parts of a checkpoint that an earlier version wrote with another structure.
    """

    def __init__(self, directory: Path, *, keep: int = 2, anew: Anew | None = None) -> None:
        self._directory = directory
        self._keep = keep
        self._anew = anew

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in order; anything else in the directory is ignored."""
        if not self._directory.is_dir():
            return []
        found = (_STEP.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, tree: Any, *, metadata: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint of a step, then remove the oldest beyond `keep`.

        Raises:
            ConflictError: the step is not above the last one.
        """
        before = self.steps()
        if before and step <= before[-1]:
            raise ConflictError(
                f"checkpoint {step} in {self._directory} would not follow {before[-1]}; is there another writer?"
            )
        save_tree(self._path(step), tree, metadata=metadata)
        for old in before[: len(before) + 1 - self._keep]:
            remove_directory(self._path(old))
        self._sweep()

    def latest(self, template: Any = None, *, below: tuple[str, ...] = ()) -> tuple[int, Any, dict[str, Any]] | None:
        """The step, tree and metadata of the last intact checkpoint; None if there is none.

        A corrupt one is renamed, with a warning, and the one before is used. `template` and `below`: see `load_tree`.

        Raises:
            StorageError: it does not fit the template.
        """
        return self._last_whole(lambda path: load_tree(path, template, below=below, anew=self._anew))

    def latest_metadata(self) -> dict[str, Any] | None:
        """The metadata of the last intact checkpoint, without its arrays; None if there is none."""
        found = self._last_whole(lambda path: (None, verify(path)["metadata"]))
        return found[2] if found else None

    def _last_whole(self, read: Callable[[Path], tuple[Any, dict[str, Any]]]) -> tuple[int, Any, dict[str, Any]] | None:
        for step in reversed(self.steps()):
            try:
                tree, metadata = read(self._path(step))
            except CorruptError as exc:
                logger.warning("%s; set aside, going back to the checkpoint before", exc)
                aside = self._path(step).with_suffix(".corrupt")
                remove_directory(aside)
                self._path(step).rename(aside)
                continue
            return step, tree, metadata
        return None

    def _path(self, step: int) -> Path:
        return self._directory / f"step-{step:012d}"

    def _sweep(self) -> None:
        """Remove what killed writers left; the run has one owner, so nothing else is writing."""
        for path in self._directory.iterdir():
            if is_temporary(path) and _STEP.match(path.name):
                shutil.rmtree(path, ignore_errors=True)


def _write_arrays(directory: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(directory.absolute(), dict(arrays))
    # It contains only the absolute path; the manifest says that everything was written.
    (directory / "commit_success.txt").unlink(missing_ok=True)


def _read_arrays(directory: Path, names: list[str]) -> dict[str, np.ndarray]:
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        wanted = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=as_numpy, partial_restore=True)
        return dict(checkpointer.restore(directory.absolute(), args=wanted))


def _leaves(tree: Any) -> dict[LeafPath, np.ndarray]:
    """The leaves as numpy arrays by path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(map(_part, path)): np.asarray(leaf) for path, leaf in flat}


def _part(key: Any) -> str:
    if isinstance(key, jax.tree_util.DictKey):
        return f"{_DICT_KEY}{key.key}"
    if isinstance(key, jax.tree_util.GetAttrKey):
        return key.name
    return str(key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key)


def _is_below(path: Sequence[str], names: tuple[str, ...]) -> bool:
    return tuple(part.removeprefix(_DICT_KEY) for part in path[: len(names)]) == names


def _file_name(path: LeafPath) -> str:
    """One flat, unambiguous name, safe in file names."""
    readable = ".".join(part.removeprefix(_DICT_KEY) for part in path)
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", readable)[-80:]
    return f"{safe}-{hashlib.sha256(json.dumps(path).encode()).hexdigest()[:8]}"


def _empty_nodes(tree: Any) -> list[tuple[LeafPath, dict[str, Any] | None]]:
    """The empty dicts and Nones below the root, which no leaf represents."""

    def is_empty(node: Any) -> bool:
        return node is None or (isinstance(node, dict) and not node)

    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_empty)
    return [(tuple(map(_part, path)), node) for path, node in flat if path and is_empty(node)]


def _nested(
    directory: Path, leaves: Mapping[LeafPath, np.ndarray], empty: Sequence[tuple[Sequence[str], dict[str, Any] | None]]
) -> Any:
    if not all(part.startswith(_DICT_KEY) for path in [*leaves, *(path for path, _ in empty)] for part in path):
        raise StorageError(f"checkpoint {directory} contains more than nested dicts; pass a template to load it")
    tree: dict[str, Any] = {}
    for path, leaf in [*leaves.items(), *empty]:
        if not path:
            return leaf
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part.removeprefix(_DICT_KEY), {})
        node[path[-1].removeprefix(_DICT_KEY)] = leaf
    return tree


def _like(directory: Path, leaves: Mapping[LeafPath, np.ndarray], template: Any, anew: Anew | None) -> Any:
    flat, structure = jax.tree_util.tree_flatten_with_path(template)
    wanted = {tuple(map(_part, path)): leaf for path, leaf in flat}
    if anew is not None:
        leaves = _with_new_parts(directory, leaves, wanted, anew)
    if wanted.keys() != leaves.keys():
        odd = sorted(".".join(path) for path in wanted.keys() ^ leaves.keys())
        raise StorageError(f"checkpoint {directory} does not have the requested structure: {', '.join(odd[:5])}")
    return jax.tree_util.tree_unflatten(structure, [_leaf(directory, p, leaves[p], t) for p, t in wanted.items()])


def _with_new_parts(
    directory: Path, leaves: Mapping[LeafPath, np.ndarray], wanted: Mapping[LeafPath, Any], anew: Anew
) -> Mapping[LeafPath, np.ndarray]:
    """Return the leaves, with each part that does not fit the template replaced by that of the new tree."""

    def shapes(tree: Mapping[LeafPath, Any], part: tuple[str, ...]) -> dict[LeafPath, Any]:
        return {path: (np.shape(leaf), leaf.dtype) for path, leaf in tree.items() if _is_below(path, part)}

    odd = [part for part in anew.parts if shapes(leaves, part) != shapes(wanted, part)]
    if not odd:
        return leaves
    logger.warning("%s was written by an earlier version: %s begin anew", directory, ", ".join(map(".".join, odd)))
    new = _leaves(anew.tree())
    kept = {path: leaf for path, leaf in leaves.items() if not any(_is_below(path, part) for part in odd)}
    return kept | {path: leaf for path, leaf in new.items() if any(_is_below(path, part) for part in odd)}


def _leaf(directory: Path, path: LeafPath, stored: np.ndarray, wanted: Any) -> Any:
    shape, dtype = (
        (wanted.shape, wanted.dtype) if hasattr(wanted, "dtype") else (np.shape(wanted), np.asarray(wanted).dtype)
    )
    if stored.shape != tuple(shape) or stored.dtype != dtype:
        has, asked = f"{stored.dtype}{list(stored.shape)}", f"{dtype}{list(shape)}"
        raise StorageError(f"checkpoint {directory}: {'.'.join(path)} is {has}, asked for {asked}")
    return jax.numpy.asarray(stored) if isinstance(wanted, jax.Array) else stored
