"""Detection, before training, of setups with which no skill can be learned."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from statistics import NormalDist

from flowrl_core.errors import InputError
from flowrl_core.learning.schedule import look_level
from flowrl_core.programs.registers import registers_of
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig, check_episodes
from flowrl_core.statistics import wilson_lower
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["check_plan_fits", "check_possible", "fewest_episodes"]

_MOST_EPISODES = 65_536
_GATHERS = re.compile(r"(since\.[\w.]+) *>= *n")


def check_possible(config: SkillConfig, named: Callable[[str], str] = str) -> None:
    """Check that a run with this configuration can end as learned.

    Args:
        named: maps a field's path (`training.frames`) to how the user wrote it.

    Raises:
        InputError: it cannot; the message names the contradicting fields and the remedy.
    """
    training, evaluation = config.training, config.evaluation
    _check_bound(config, named)
    episodes, num_envs = named("evaluation.episodes"), named("training.num_envs")
    check_episodes(episodes, evaluation.episodes, training.num_envs, num_envs=num_envs)
    update = training.num_envs * training.rollout_length
    if training.frames < update:
        raise InputError(
            named("training.frames"),
            f"{training.frames} is less than one update needs: {named('training.num_envs')} ({training.num_envs}) "
            f"times {named('training.rollout_length')} ({training.rollout_length})",
            f"Use at least {update}, or fewer environments or shorter rollouts",
        )
    if training.frames < evaluation.min_frames:
        raise InputError(
            named("training.frames"),
            f"{training.frames} is below {named('evaluation.min_frames')} ({evaluation.min_frames}): the budget ends "
            "before the first look is due",
            f"Use at least {evaluation.min_frames} frames, or lower {named('evaluation.min_frames')}",
        )


def check_plan_fits(
    config: SkillConfig,
    plan: Plan,
    skills: Mapping[str, Skill],
    vocabulary: Vocabulary,
    named: Callable[[str], str] = str,
) -> None:
    """Check that an episode has at least as many steps as the plan needs.

    Args:
        skills: those of the plan, by name.
        named: maps a field's path to how the user wrote it.

    Raises:
        InputError: it has fewer.
    """
    limit = config.training.episode_limit
    least = sum(_least_steps(skills[step.skill], step.n, vocabulary) for step in plan.steps)
    if least > limit:
        names = " -> ".join(f"{step.skill} x{step.n}" if step.n > 1 else step.skill for step in plan.steps)
        problem = f"{limit} is too short: the plan of {plan.target} takes at least {least} steps ({names})"
        raise InputError(
            named("training.episode_limit"), problem, f"Use at least {least}, and more to leave room for learning"
        )


def _least_steps(skill: Skill, n: int, vocabulary: Vocabulary) -> int:
    """The minimum number of environment steps for the skill: one, or as many as gathering `n` takes."""
    done = skill.program.done
    if re.search(r"\b(or|if|not)\b|\(", done):
        return 1
    gathered = [part[1] for text in done.split(" and ") if (part := _GATHERS.fullmatch(text.strip()))]
    most = [fluent.most_gained or vocabulary.most_gained for fluent in registers_of(vocabulary).told(gathered)]
    return max((-(-n // each) for each in most), default=1)


def fewest_episodes(evaluation: EvaluationSpec, multiple: int = 1) -> int:
    """The smallest multiple of `multiple` for which that many episodes, all successful, reach the threshold.

    0 if that is more than the setting allows.
    """
    level = look_level(evaluation)
    if level <= 0.0:
        return 0
    z = NormalDist().inv_cdf(level)
    # Without a failure the bound is n / (n + z^2); rounding is left to the bound itself.
    least = math.floor(z * z * evaluation.threshold / (1 - evaluation.threshold) / multiple) * multiple
    for episodes in range(max(multiple, least), _MOST_EPISODES + 1, multiple):
        if wilson_lower(episodes, episodes, level) >= evaluation.threshold:
            return episodes
    return 0


def _check_bound(config: SkillConfig, named: Callable[[str], str]) -> None:
    evaluation = config.evaluation
    level, episodes = look_level(evaluation), evaluation.episodes
    best = wilson_lower(episodes, episodes, level) if level > 0.0 else 0.0
    if best >= evaluation.threshold:
        return
    bound = f"{math.floor(best * 1000) / 1000:g}"
    least = fewest_episodes(evaluation, config.training.num_envs)
    enough = f"Use at least {least} episodes, or" if least else "Use"
    raise InputError(
        named("evaluation.episodes"),
        f"{_counted(episodes, 'episode')} cannot prove {named('evaluation.threshold')} ({evaluation.threshold:g}): "
        f"even {_counted(episodes, 'success', 'es')} would prove only {bound}, at {named('evaluation.level')} "
        f"({evaluation.level:g}) shared by {named('evaluation.looks')} ({evaluation.looks})",
        f"{enough} a threshold of {bound} at most",
    )


def _counted(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"
