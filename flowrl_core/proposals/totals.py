"""Rewards that pay for totals, such as blows: a total can rise all through an episode, whatever the skill is about.

The damage dealt to the skill's own target (`dealt.cow` with the target `cow`) may be paid for: the fight ends with the
skill's gain. Nothing else that a total counts may be, least of all damage taken; it may cost something.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowrl_core.proposals.program_checks import ProgramChecks
from flowrl_core.skills.model import Skill
from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = ["blows_at_target", "paid_rise", "rises"]

_RISES = 9
"""Rises that are tried of a total that does not say how much it rises in a step."""


def blows_at_target(skill: Skill, vocab: Vocabulary) -> str | None:
    """Return the total that counts the damage dealt to the skill's target; None if the vocabulary has none."""
    name = f"dealt.{skill.target}"
    return name if any(fluent.name == name and fluent.kind == "total" for fluent in vocab.fluents) else None


def paid_rise(checks: ProgramChecks, *, above: float) -> tuple[Fluent, list[np.ndarray], float] | None:
    """Return the first total whose rise is paid for although the skill is not about it, with the states and the pay.

    The pay of a rise is its reward less that of standing still, so that a cost of time hides nothing. Damage dealt to
    the target counts as what the skill is about, unless its gain was recorded and never came with such a blow.

    Args:
        above: pay up to this counts as none.
    """
    own = blows_at_target(checks.skill, checks.recorded.vocabulary)
    for fluent in checks.read:
        if fluent.kind != "total" or (fluent.name == own and _comes_with_gain(checks, fluent)):
            continue
        for before, after in rises(checks, fluent):
            for n in checks.lasting_counts:
                judged, still = checks.along([before, after], n), checks.along([before, before], n)
                pay = float(judged.reward[0] - still.reward[0])
                if pay > above and not judged.done[0]:
                    return fluent, [before, after], pay
    return None


def rises(checks: ProgramChecks, fluent: Fluent) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rises of a total in one environment step, as states f32[F] before and after it.

    Each begins at the step's entry, and again with all flags and places set that the reward reads.
    """
    lit = {other.name: 1 for other in checks.read if other.kind in ("flag", "place")}
    for base in (checks.at_entry, checks.changed(checks.at_entry, lit)) if lit else (checks.at_entry,):
        have = int(base[checks.index[fluent.name]])
        for rise in range(1, min(fluent.most_gained or _RISES, fluent.high - have) + 1):
            yield base, checks.changed(base, {fluent.name: have + rise})


def _comes_with_gain(checks: ProgramChecks, fluent: Fluent) -> bool:
    column, recorded = checks.index[fluent.name], checks.recorded
    rose = recorded.now[checks.events, column] > recorded.prev[checks.events, column]
    return not len(rose) or bool(rose.any())
