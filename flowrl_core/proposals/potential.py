"""The reward in potential form: a gain is rewarded once, and a loss costs the same."""

from __future__ import annotations

from flowrl_core.programs.registers import change_name, registers_of
from flowrl_core.proposals.totals import blows_at_target
from flowrl_core.skills.model import Skill
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["potential_form"]


def potential_form(skill: Skill, vocab: Vocabulary) -> str:
    """Return a reward for the skill's gain that cannot be farmed.

    Counts pay per unit. Without counts, flags pay when they are raised. A gained place pays for coming closer or, if
    the skill also gains a flag (as by placing a table) or the place has no distance, for being done. If the vocabulary
    counts the damage dealt to the skill's target, each point adds a little: a fight takes several blows. If it has
    health, its change adds a small term, as in the game's own reward.

    Args:
        skill: its gain is in the vocabulary.
        vocab: the fluents that a reward may read.
    """
    names = {fluent.name for fluent in vocab.fluents}
    counts = [name for gain in skill.gain if (name := change_name("gained", gain)) in registers_of(vocab).slots]
    flags = [name.removeprefix("ach.") for name in skill.gain if name.startswith("ach.")]
    places = [name.removeprefix("near.") for name in skill.gain if name.startswith("near.")]
    if counts:
        terms = counts
    elif places and (flags or any(f"dist.{name}" not in names for name in places)):
        terms = [f"(1 if {skill.program.done} else 0)"]
    elif places:
        terms = [f"closer.{name}" for name in places]
    else:
        terms = [f"(1 if new_ach.{name} else 0)" for name in flags]
    terms += [f"0.1 * {change_name('gained', blows)}" for blows in blows_at_target(skill, vocab)]
    if "health" in names:
        terms.append("0.1 * d.health")
    return " + ".join(terms)
