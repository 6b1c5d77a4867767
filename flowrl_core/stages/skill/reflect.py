"""Reflect: how a run's episodes went with its final parameters, for a model that proposes skills.

It decides nothing; it reports the plan steps in which episodes ended, and which parts of the reward contributed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flowrl_core.errors import StorageError
from flowrl_core.programs.addends import addends, lower_term
from flowrl_core.programs.language import check_reward
from flowrl_core.programs.registers import change_name, registers_of
from flowrl_core.randomness import jax_stream, jax_substream
from flowrl_core.skills.model import Skill
from flowrl_core.skills.reflection import Reflection, Term
from flowrl_core.stages.skill.context import RunContext, open_run
from flowrl_core.stages.skill.directory import run_directory
from flowrl_core.stages.skill.evaluate import verdict
from flowrl_core.storage.atomic import crash_point
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.vocabulary.catalogue import vocabulary

if TYPE_CHECKING:
    from flowrl_core.learning.evaluation import Evaluation
    from flowrl_core.learning.reward_diagnostics import TermSums
    from flowrl_core.programs.tables import Table
    from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["reflect"]

logger = logging.getLogger(__name__)

_EPISODES = 64
"""Minimum number of episodes, if the pool of worlds has that many."""
_MOST_PASSES = 8


def reflect(home: Home, run: int, *, epoch: int | None = None) -> Reflection | None:
    """Record and return how the run's episodes went; an existing record stands. None without a checkpoint.

    The same few episodes are played once per measured term, at most eight times.

    Raises:
        StorageError: the run has no verdict yet.
        ConflictError: it was claimed after `epoch`.
    """
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        registry.runs.check_claim(run, epoch)
        if record.reflection is not None or not run_directory(home, record).config.is_file():
            return record.reflection
        context = open_run(home, registry, run, epoch=epoch)
        found = context.latest_params()
        if found is None:
            return None
        if record.verdict is None and verdict(home, run) is None:
            raise StorageError(f"run {run} has no verdict yet; train and evaluate it first")
        params, facts = found
        reflection = _measure(context, facts["run_frames"], params)
        crash_point("before_reflection_record")
        recorded = registry.skill_runs.record_reflection(run, reflection, epoch=epoch)
    logger.info("%s: reflected on %d episodes", context.plan.target, recorded.episodes)
    return recorded


def _measure(context: RunContext, frames: int, params: Any) -> Reflection:
    skill = context.skills[context.plan.steps[-1].skill]
    whole = check_reward(skill.program.reward, vocabulary(context.env)).text
    terms, gained = addends(whole), _gained(skill, vocabulary(context.env))
    played, sums = _play(context, params, whole, terms, gained.values())
    return Reflection(
        frames=frames,
        episodes=played.episodes,
        successes=played.successes,
        tries=sums[whole].tries,
        median_length=None if math.isnan(played.median_length) else played.median_length,
        ends=played.step_ends,
        reward=_term(whole, sums[whole]),
        terms=tuple(_term(text, sums[text]) for text in terms if text in sums),
        changes={fluent: sums[text].mean_won for fluent, text in gained.items() if text in sums and played.successes},
    )


def _gained(skill: Skill, words: Vocabulary) -> dict[str, str]:
    """For each amount that a skill mentions, the term that sums its changes, by fluent."""
    fluents = dict.fromkeys([*skill.gain, *skill.consumption, *skill.requirements])
    changes = {name: change_name("gained", name) for name in fluents}
    return {name: change for name, change in changes.items() if change in registers_of(words).slots}


def _play(
    context: RunContext, params: Any, whole: str, terms: Iterable[str], gained: Iterable[str]
) -> tuple[Evaluation, dict[str, TermSums]]:
    """The evaluation of the episodes, and the sums of the terms in them, by text; some terms may be left out."""
    from flowrl_core.learning.reward_diagnostics import play_term

    learner, plan, words = context.learner(), context.plan_arrays(), vocabulary(context.env)
    key = jax_stream(context.seed, "reflection")
    pool, play_key = learner.fill(jax_substream(key, "worlds")), jax_substream(key, "play")
    num_envs = learner.shapes.num_envs
    quota = min(math.ceil(_EPISODES / num_envs), learner.shapes.world_pool // num_envs)

    def play(term: Table) -> tuple[Evaluation, TermSums]:
        return play_term(learner, params, plan, term, pool, quota, play_key)

    table = lower_term(whole, words)
    assert table is not None  # already lowered for the plan
    played, first = play(table)
    sums = {whole: first}
    for text in [*terms, *(gained if played.successes else ())]:
        if text not in sums and len(sums) < _MOST_PASSES and (table := lower_term(text, words)) is not None:
            sums[text] = play(table)[1]
    return played, sums


def _term(text: str, sums: TermSums) -> Term:
    return Term(text, sums.fired, sums.mean)
