"""Guards: learned skills that take over in any step of a plan while their condition holds, and then give back.

A guard splits a step's policy by state: while it acts, it earns the step's reward, and the plan advances as if the
step's own expert acted. Guards are data, so a plan with guards compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.evaluator import evaluate
from flowrl_core.errors import PlanError
from flowrl_core.programs.language import check_condition, check_reward, lower
from flowrl_core.programs.tables import Table, stack, zeros
from flowrl_core.skills.model import MAX_GUARDS, Skill
from flowrl_core.trees import tree_class
from flowrl_core.types import Leaf, View
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["NONE", "GuardArrays", "blank_guards", "bonus", "lower_guards", "on_duty"]

NONE = -1
"""The number of the guard that acts where none does."""


@tree_class
class GuardArrays:
    """Up to G guards as data, the first before the second where both would take over.

    Attributes:
        takes_over, gives_back, reward: their programs as tables, leaves [G, I].
        expert: i32[G] the local expert of each; -1 for none.
        target: i32[G] index of the target of each, -1 for none.
        view: i32[G] what each sees, the flags of `types.View`.
        actions: bool[G, A] the actions that each may use.
    """

    takes_over: Table
    gives_back: Table
    reward: Table
    expert: Leaf
    target: Leaf
    view: Leaf
    actions: Leaf


def lower_guards(
    names: Sequence[str],
    skills: Mapping[str, Skill],
    experts: Mapping[str, int],
    actions: np.ndarray,
    vocabulary: Vocabulary,
    *,
    views: Mapping[str, View] = {},
) -> GuardArrays:
    """Return the guards as arrays.

    Args:
        names: the skills that guard the plan, by priority.
        experts: the local expert of each.
        actions: bool[len(names), A] the actions that each may use.
        views: what the expert of each skill sees; none named: what the player sees.

    Raises:
        PlanError: more than MAX_GUARDS, or a skill that declares no guard.
        ProgramError: a program is invalid or too large.
    """
    if len(names) > MAX_GUARDS:
        raise PlanError("guards", f"{len(names)} are more than {MAX_GUARDS}", "List fewer")
    blank = blank_guards(vocabulary)
    if not names:
        return blank
    declared = []
    for name in names:
        guard = skills[name].guard
        if guard is None:
            raise PlanError("guards", f"{name} declares no guard", "Give the skill a table `guard`, or leave it out")
        declared.append(guard)
    expert, target, view, allowed = (each.copy() for each in (blank.expert, blank.target, blank.view, blank.actions))
    expert[: len(names)] = [experts[name] for name in names]
    target[: len(names)] = [
        vocabulary.targets.index(aim) if (aim := skills[name].target) is not None else NONE for name in names
    ]
    view[: len(names)] = [views.get(name, View.PLAIN) for name in names]
    allowed[: len(names)] = actions

    def lowered(reward: str) -> Table:
        return lower(check_reward(reward, vocabulary), vocabulary) if reward else Table(*(row[0] for row in zeros(1)))

    def conditions(texts: Sequence[str]) -> Table:
        return stack([lower(check_condition(text, vocabulary), vocabulary) for text in texts], MAX_GUARDS)

    return GuardArrays(
        takes_over=conditions([guard.takes_over for guard in declared]),
        gives_back=conditions([guard.gives_back for guard in declared]),
        reward=stack([lowered(guard.reward) for guard in declared], MAX_GUARDS),
        expert=expert,
        target=target,
        view=view,
        actions=allowed,
    )


def blank_guards(vocabulary: Vocabulary) -> GuardArrays:
    """Return arrays without any guard."""
    table = zeros(MAX_GUARDS)
    none = np.full(MAX_GUARDS, NONE, np.int32)
    actions = np.ones((MAX_GUARDS, len(vocabulary.actions)), bool)
    return GuardArrays(table, table, table, none, none, np.zeros(MAX_GUARDS, np.int32), actions)


def bonus(guards: GuardArrays, registers: jax.Array, guard: jax.Array) -> jax.Array:
    """Return the own reward of the guard that acted, f32[B]; 0 where none did.

    Args:
        registers: f32[B, R]; guard: i32[B].
    """

    def earned() -> jax.Array:
        return jnp.where(guard >= 0, evaluate(guards.reward, jnp.maximum(guard, 0), registers), 0.0)

    return jax.lax.cond(_any(guards), earned, lambda: jnp.zeros(guard.shape, jnp.float32))


def on_duty(guards: GuardArrays, read: Callable[[], jax.Array], before: jax.Array) -> jax.Array:
    """Return the guard that acts in each environment, i32[B]; NONE where the plan's own expert acts.

    The first guard whose condition to take over holds acts, unless one before it acts already and does not give back.

    Args:
        read: returns the registers f32[B, R], see `programs.registers.fill`; called only if there are guards.
        before: i32[B] the guard that acted last.
    """

    def chosen() -> jax.Array:
        registers = read()

        def holds(number: jax.Array) -> jax.Array:
            return evaluate(guards.takes_over, jnp.full_like(before, number), registers) > 0.5

        takes = jax.vmap(holds)(jnp.arange(MAX_GUARDS)) & (jnp.asarray(guards.expert) >= 0)[:, None]
        new = jnp.where(takes.any(0), takes.argmax(0), MAX_GUARDS)
        gives = evaluate(guards.gives_back, jnp.maximum(before, 0), registers) > 0.5
        held = jnp.where((before >= 0) & ~gives, before, MAX_GUARDS)
        first = jnp.minimum(new, held).astype(jnp.int32)
        return jnp.where(first < MAX_GUARDS, first, NONE)

    return jax.lax.cond(_any(guards), chosen, lambda: jnp.full_like(before, NONE))


def _any(guards: GuardArrays) -> jax.Array:
    return (jnp.asarray(guards.expert) >= 0).any()
