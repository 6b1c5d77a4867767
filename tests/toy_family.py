"""A family of runs that knows nothing of skills: a counter that "trains" by adding numbers, one an update.

Its numbers lie in a sealed directory, its total is published by content, and what it has counted is kept as a tally.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowrl_core.learning.loop import EveryUpdates, Trainable, TrainingLoop, UpdateResult
from flowrl_core.storage.archive import archive
from flowrl_core.storage.atomic import write_json
from flowrl_core.storage.checkpoints import TrainCheckpoints
from flowrl_core.storage.damage import Damaged
from flowrl_core.storage.families import Family, Rule, View
from flowrl_core.storage.layout import Home, RunDirectory
from flowrl_core.storage.manifests import flaw
from flowrl_core.storage.metrics import MetricsFile
from flowrl_core.storage.ownership import exclusive, own_run
from flowrl_core.storage.records.runs import Attempt, RunRecord
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.sealed import seal
from flowrl_core.storage.versions import put

NUMBERS = tuple(0.1 * number for number in range(1, 13))


def published(registry: Registry) -> dict[str, str]:
    """The contents of all totals, with the names of their runs."""
    runs = registry.runs.of("toy")
    return {run.result["content"]: f"{run.name}-{run.ordinal}" for run in runs if run.result is not None}


def damaged(home: Home, registry: Registry, by_size: bool) -> list[Damaged]:
    found = []
    for content, run in published(registry).items():
        if problem := flaw(home.version(content), by_size=by_size):
            found.append(Damaged(f"run {run}", "the total", f"versions/{content}", problem))
    return found


def _why_tally(view: View, path: Path) -> str:
    return "" if view.is_young(path) else "a tally that nobody reads any more"


TOY = Family(
    name="toy",
    kept=("config.json", "metrics.jsonl"),
    contents=published,
    # What the last run counted, so that it can be counted again.
    sealed=lambda registry: {run.inputs for run in registry.runs.of("toy")[-1:] if run.inputs},
    damaged=damaged,
    directories=("tallies",),
    garbage={
        "tallies": Rule(
            candidates=lambda home: (home.root / "tallies").glob("*.json"),
            why=_why_tally,
            locked=lambda home, path: exclusive(path.with_suffix(".lock"), what="the tally"),
            remove=lambda view, path: path.unlink(),
        )
    },
)


def submit(home: Home, name: str = "count") -> Attempt:
    """An attempt of a new run, which belongs to no campaign and works on nothing that others could."""
    with Registry.open(home) as registry:
        return registry.attempts.begin(registry.runs.open("toy", name).id)


def directory_of(home: Home, run: RunRecord) -> RunDirectory:
    return home.run_directory(run.group, run.name, run.ordinal)


def work(
    home: Home,
    attempt: int,
    numbers: Sequence[float] = NUMBERS,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_update: Callable[[Any], None] = lambda progress: None,
) -> RunRecord:
    """One process's work on the attempt's run, from wherever it stands; the run as it is then."""
    with Registry.open(home) as registry:
        run = registry.runs.get(registry.attempts.get(attempt).run)
    with own_run(directory_of(home, run)):
        with Registry.open(home) as registry:
            epoch = registry.runs.claim(run.id)
        return count(home, attempt, epoch, numbers, should_stop=should_stop, on_update=on_update)


def count(
    home: Home,
    attempt: int,
    epoch: int,
    numbers: Sequence[float] = NUMBERS,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_update: Callable[[Any], None] = lambda progress: None,
) -> RunRecord:
    """The work itself, of the process that owns the run and has claimed it as `epoch`."""
    with Registry.open(home) as registry:
        run = registry.runs.get(registry.attempts.get(attempt).run)
        inputs = seal(home, "toy", {"numbers": list(numbers)}, lambda path: np.save(path / "numbers.npy", numbers))
        config = {"save_every": 2}
        registry.runs.seal(run.id, inputs=inputs.name, config=config, epoch=epoch)
        directory = directory_of(home, run)
        directory.path.mkdir(parents=True, exist_ok=True)
        write_json(directory.config, config)
        loop = TrainingLoop(
            "count",
            counter(np.load(inputs / "numbers.npy")),
            TrainCheckpoints(directory.checkpoints),
            MetricsFile(directory.metrics),
            policy=EveryUpdates(config["save_every"]),
            before_save=lambda: registry.runs.check_claim(run.id, epoch),
        )
        end = loop.run(pause=lambda state, update: update == len(numbers), should_stop=should_stop, on_update=on_update)
        if end == "paused":
            _publish(home, registry, run, epoch)
            registry.attempts.end(attempt, "verdict")
        return registry.runs.get(run.id)


def counter(numbers: np.ndarray) -> Trainable[dict[str, np.ndarray]]:
    """The learner: its state is the total."""

    def step(state: dict[str, np.ndarray], update: int, step_scale: float) -> UpdateResult[dict[str, np.ndarray]]:
        return UpdateResult({"total": state["total"] + step_scale * numbers[update - 1]}, {})

    zero = {"total": np.float64(0.0)}
    return Trainable(init=lambda: dict(zero), step=step, tree=dict, template=lambda: dict(zero), restore=dict)


def _publish(home: Home, registry: Registry, run: RunRecord, epoch: int) -> None:
    directory = directory_of(home, run)
    found = TrainCheckpoints(directory.checkpoints).latest()
    assert found is not None
    content = put(home, found[1], metadata={"run": run.id})
    (home.root / "tallies").mkdir(exist_ok=True)
    write_json(home.root / "tallies" / f"{run.name}-{run.ordinal}.json", {"updates": found[0], "time": time.time()})
    registry.runs.end(run.id, "counted", result={"content": content}, epoch=epoch)
    archive(directory, home.archived_run(run.group, run.name, run.ordinal), TOY.kept)


if __name__ == "__main__":
    work(Home(Path(sys.argv[1])), int(sys.argv[2]))
