"""A run as its stages see it: the sealed directory read back, and the inputs of training built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowrl_core.errors import StorageError
from flowrl_core.skills.experts import Remap
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.specs.skill import SkillConfig, read_parameters
from flowrl_core.stages.skill.directory import SkillRunDirectory, run_directory
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.skill_runs import SkillRunRecord
from flowrl_core.storage.registry import Registry
from flowrl_core.types import View
from flowrl_core.vocabulary.catalogue import vocabulary

if TYPE_CHECKING:
    from flowrl_core.envs.automaton import PlanArrays
    from flowrl_core.learning.learner import Learner

__all__ = ["RunContext", "open_run"]

_PARAMS = ("learner", "params")
"""Path of the experts' parameters in a training checkpoint."""


@dataclass(frozen=True)
class RunContext:
    """A prepared run.

    Attributes:
        epoch: the claim under which this process works on the run; None: without a claim.
        seed: seed of all the run's random streams, unique in the registry.
        experts: global index of each skill of the plan.
        skills: definitions of the plan's skills.
        views: what the expert of each of them sees.
    """

    home: Home
    record: SkillRunRecord
    epoch: int | None
    directory: SkillRunDirectory
    env: str
    seed: int
    config: SkillConfig
    plan: Plan
    remap: Remap
    experts: Mapping[str, int]
    skills: Mapping[str, Skill]
    views: Mapping[str, View]

    def learner(self) -> Learner:
        """The compiled learner for the run's shapes."""
        from flowrl_core.compiled.cache import compiled_learner
        from flowrl_core.learning.shapes import shapes_of

        shapes = shapes_of(self.env, self.config.training, len(self.remap.global_to_local))
        return compiled_learner(self.home.cache, shapes)

    def latest_params(self) -> tuple[Any, dict[str, Any]] | None:
        """The experts' parameters of the last intact checkpoint, and its metadata; None before the first one."""
        from flowrl_core.storage.checkpoints import TrainCheckpoints

        found = TrainCheckpoints(self.directory.checkpoints).latest(below=_PARAMS)
        return found[1:] if found is not None else None

    def latest_facts(self) -> dict[str, Any]:
        """What the last intact checkpoint says of itself; nothing before the first one."""
        from flowrl_core.storage.checkpoints import TrainCheckpoints

        return TrainCheckpoints(self.directory.checkpoints).latest_metadata() or {}

    def plan_arrays(self) -> PlanArrays:
        """The plan as arrays, with local expert indices."""
        from flowrl_core.envs.automaton import lower_plan

        return lower_plan(
            self.plan,
            self.skills,
            {name: self.remap.global_to_local[index] for name, index in self.experts.items()},
            vocabulary(self.env),
            episode_limit=self.config.training.episode_limit,
            use_masks=self.config.training.action_masks,
            views=self.views,
        )


def open_run(home: Home, registry: Registry, run: int, *, epoch: int | None = None) -> RunContext:
    """The prepared run with this id.

    Raises:
        StorageError: its directory is missing or not sealed.
        ConflictError: it was claimed after `epoch`.
    """
    record = registry.skill_runs.get(run)
    registry.runs.check_claim(run, epoch)
    return _read(home, record, run_directory(home, record), epoch)


def _read(home: Home, record: SkillRunRecord, directory: SkillRunDirectory, epoch: int | None) -> RunContext:
    if not directory.config.is_file():
        raise StorageError(f"run {record.id} has no sealed directory at {directory.path}; prepare it again")
    config = json.loads(directory.config.read_text(encoding="utf-8"))
    steps = json.loads(directory.plan.read_text(encoding="utf-8"))
    return RunContext(
        home=home,
        record=record,
        epoch=epoch,
        directory=directory,
        env=config["env"],
        seed=config["seed"],
        config=SkillConfig.model_validate(read_parameters(config["parameters"])),
        plan=Plan.from_dict(steps),
        remap=Remap.from_dict(json.loads(directory.remap.read_text(encoding="utf-8"))),
        experts=steps["experts"],
        skills={name: Skill.from_dict(data) for name, data in steps["skills"].items()},
        views={name: View(view) for name, view in steps.get("views", _earlier_views(steps)).items()},
    )


def _earlier_views(steps: Mapping[str, Any]) -> dict[str, View]:
    """Return the views of a run that was sealed when a plan named canonical views alone, or none."""
    return dict.fromkeys(steps.get("canonical", ()), View.CANONICAL)
