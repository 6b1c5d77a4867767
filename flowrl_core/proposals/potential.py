"""The reward in potential form: what a skill gains is paid once, and taken back where it is lost."""

from __future__ import annotations

from flowrl_core.skills.model import Skill
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["potential_form"]


def potential_form(skill: Skill, vocab: Vocabulary) -> str:
    """A reward for what the skill gains that nothing can be farmed from.

    Counts pay by the unit. A skill without counts pays when its flags are raised; one that brings a place pays for
    coming closer, or, where it also brings a flag (as by putting a table down), for being done. Health counts a little
    where there is any, as in the game's own reward.

    Args:
        skill: with a gain that the vocabulary knows.
        vocab: the fluents that a reward may read.
    """
    names = {fluent.name for fluent in vocab.fluents}
    counts = [name.removeprefix("inv.") for name in skill.gain if name.startswith("inv.")]
    flags = [name.removeprefix("ach.") for name in skill.gain if name.startswith("ach.")]
    places = [name.removeprefix("near.") for name in skill.gain if name.startswith("near.")]
    if counts:
        terms = [f"gained.{name}" for name in counts]
    elif places and (flags or any(f"dist.{name}" not in names for name in places)):
        terms = [f"(1 if {skill.program.done} else 0)"]
    elif places:
        terms = [f"closer.{name}" for name in places]
    else:
        terms = [f"(1 if new_ach.{name} else 0)" for name in flags]
    if "health" in names:
        terms.append("0.1 * d.health")
    return " + ".join(terms)
