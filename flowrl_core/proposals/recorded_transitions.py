"""Transitions recorded in an environment, for running the programs of a proposal.

The files are stored with their environments and recorded by `stages.proposals.recording`. No JAX here.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from flowrl_core.digest import digest
from flowrl_core.errors import InputError, StorageError
from flowrl_core.programs.registers import Registers, fill, registers_of
from flowrl_core.vocabulary.catalogue import environment, vocabulary
from flowrl_core.vocabulary.model import Vocabulary

__all__ = [
    "SEGMENT",
    "RecordedTransitions",
    "transitions_file",
    "load_transitions",
    "save_transitions",
    "vocabulary_digest",
]

SEGMENT = 16
"""Environment steps between updates of `start`, as if the next step of a plan began there."""

# The assumed distance of a reached place if none was recorded.
_BESIDE = 1


@dataclass(frozen=True, eq=False)
class RecordedTransitions:
    """A frozen record of transitions in an environment.

    Attributes:
        vocabulary: the base fluents F, in the order of the rows.
        episodes: u8[E, L + 1, F], base fluents at the start and after each step.
        lengths: i64[E], steps of each episode before it ended (at most L).
        scripts: E names, the script that produced each episode.
        resets: u8[R, F], base fluents of new worlds.
    """

    vocabulary: Vocabulary
    episodes: np.ndarray
    lengths: np.ndarray
    scripts: tuple[str, ...]
    resets: np.ndarray

    @cached_property
    def steps(self) -> np.ndarray:
        """i64[T, 3]: episode, step before the transition, and step of its `start`."""
        found = [(e, t, t - t % SEGMENT) for e, length in enumerate(self.lengths) for t in range(length)]
        return np.array(found, np.int64).reshape(-1, 3)

    @cached_property
    def prev(self) -> np.ndarray:
        """f32[T, F], base fluents before each transition."""
        return np.asarray(self.episodes[self.steps[:, 0], self.steps[:, 1]], np.float32)

    @cached_property
    def now(self) -> np.ndarray:
        """f32[T, F], base fluents after each transition."""
        return np.asarray(self.episodes[self.steps[:, 0], self.steps[:, 1] + 1], np.float32)

    @cached_property
    def start(self) -> np.ndarray:
        """f32[T, F], base fluents where the segment began."""
        return np.asarray(self.episodes[self.steps[:, 0], self.steps[:, 2]], np.float32)

    @cached_property
    def transitions(self) -> np.ndarray:
        """f32[R, T], the registers of each transition."""
        return self.registers(self.now, self.prev, self.start)

    @cached_property
    def idle(self) -> np.ndarray:
        """f32[R, I], registers of standing still (no change) in each recorded state."""
        states = np.unique(np.concatenate([self.now, self.start], axis=1), axis=0)
        now, start = np.split(states, 2, axis=1)
        return self.registers(now, now, start)

    @cached_property
    def moves(self) -> tuple[np.ndarray, np.ndarray]:
        """f32[R, M] twice: transitions in which only places and distances changed, and the same ones reversed."""
        is_moving = np.array([fluent.kind in ("place", "distance") for fluent in self.vocabulary.fluents])
        is_changed = self.now != self.prev
        rows = (~is_changed[:, ~is_moving]).all(axis=1) & is_changed.any(axis=1)
        kept = np.unique(np.concatenate([self.now, self.prev, self.start], axis=1)[rows], axis=0)
        now, prev, start = np.split(kept, 3, axis=1)
        return self.registers(now, prev, start), self.registers(prev, now, start)

    @cached_property
    def new_worlds(self) -> np.ndarray:
        """f32[R, N], registers of new worlds."""
        rows = np.asarray(self.resets, np.float32)
        return self.registers(rows, rows, rows)

    @cached_property
    def beside(self) -> Mapping[str, int]:
        """Place -> smallest distance at which it was near, for places whose distance is a fluent too."""
        index = {fluent.name: i for i, fluent in enumerate(self.vocabulary.fluents)}
        found = {}
        for name, i in index.items():
            distance = index.get(f"dist.{name.removeprefix('near.')}")
            if name.startswith("near.") and distance is not None:
                there = self.now[self.now[:, i] == 1, distance]
                found[name] = int(there.min()) if len(there) else _BESIDE
        return found

    @cached_property
    def layout(self) -> Registers:
        """The register layout: where each name is read."""
        return registers_of(self.vocabulary)

    def registers(self, now: np.ndarray, prev: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return the registers f32[R, K] of the moments f32[K, F], with n = 1; the values of a name are contiguous."""
        count = np.ones(len(now), np.float32)
        return np.ascontiguousarray(fill(np, now, prev, start, count, self.layout).T)


def vocabulary_digest(vocab: Vocabulary) -> str:
    """Return the digest of the environment and its fluents, which define the meaning of a row."""
    return digest({"env": vocab.env, "fluents": [[f.name, f.kind, f.low, f.high] for f in vocab.fluents]})


def transitions_file(env: str) -> Path:
    """Return the file of an environment's recorded transitions.

    Raises:
        InputError: there is no such environment, or it has no recorded transitions.
    """
    path = environment(env).transitions
    if path is None:
        problem = f"{env} has no recorded transitions to try programs on"
        raise InputError("env", problem, "Name a file for them in its entry of the catalogue")
    return path


def save_transitions(recorded: RecordedTransitions, path: Path) -> None:
    """Write the transitions; equal transitions produce equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        vocabulary=np.array(vocabulary_digest(recorded.vocabulary)),
        episodes=recorded.episodes.astype(np.uint8),
        lengths=recorded.lengths.astype(np.uint8),
        scripts=np.array(recorded.scripts),
        resets=recorded.resets.astype(np.uint8),
    )


@lru_cache(maxsize=4)
def load_transitions(env: str) -> RecordedTransitions:
    """Return the transitions shipped with an environment, cached.

    Raises:
        InputError: as `transitions_file`.
        StorageError: there is no such file, it cannot be read, or it was recorded with other fluents.
    """
    return read_transitions(transitions_file(env), vocabulary(env))


def read_transitions(path: Path, vocab: Vocabulary) -> RecordedTransitions:
    """Return the recorded transitions in a file.

    Raises:
        StorageError: there is no such file, it cannot be read, or it was recorded with other fluents.
    """
    remedy = f"Record it again: python -m flowrl_core.stages.proposals.recording {vocab.env}"
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        recorded = RecordedTransitions(
            vocabulary=vocab,
            episodes=stored["episodes"],
            lengths=stored["lengths"].astype(np.int64),
            scripts=tuple(map(str, stored["scripts"])),
            resets=stored["resets"],
        )
        fluents = str(stored["vocabulary"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise StorageError(f"{path.name} contains no recorded transitions of {vocab.env} ({exc}). {remedy}") from exc
    if fluents != vocabulary_digest(vocab):
        raise StorageError(f"{path.name} was recorded with fluents that differ from those of {vocab.env} now. {remedy}")
    return recorded
