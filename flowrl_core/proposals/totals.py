"""Rewards that pay for totals, such as blows: a total can rise all through an episode, whatever the skill is about.

The damage dealt to the skill's own target (`dealt.cow` with the target `cow`) may be paid for: the fight ends with the
skill's gain. Nothing else that a total counts may be, least of all damage taken; it may cost something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flowrl_core.proposals.program_checks import ProgramChecks
from flowrl_core.skills.model import Skill
from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = ["blows_at_target", "paid_rise", "rises"]

_RISES = 9
"""Rises that are tried of a total that does not say how much it rises in a step."""


def blows_at_target(skill: Skill, vocab: Vocabulary) -> tuple[str, ...]:
    """Return the totals that count the damage dealt to the skill's target: one for each kind that it stands for."""
    totals = [fluent.name for fluent in vocab.fluents if fluent.kind == "total"]
    kinds = vocab.kinds(skill.target) if skill.target is not None else ()
    return tuple(name for kind in kinds if (name := f"dealt.{kind}") in totals)


def paid_rise(checks: ProgramChecks, *, above: float) -> tuple[Fluent, list[np.ndarray], float] | None:
    """Return the first total whose rise is paid for although the skill is not about it, with the states and the pay.

    The pay of a rise is its reward less that of standing still, so that a cost of time hides nothing. Damage dealt to
    the target counts as what the skill is about, unless its gain was recorded and never came with such a blow.

    Args:
        above: pay up to this counts as none.
    """
    own = blows_at_target(checks.skill, checks.recorded.vocabulary)
    is_fight = bool(own) and _come_with_gain(checks, own)
    for fluent in checks.read:
        if fluent.kind != "total" or (fluent.name in own and is_fight):
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


def _come_with_gain(checks: ProgramChecks, totals: Sequence[str]) -> bool:
    """Whether one of the totals rose in a recorded gain of the skill, or no gain was recorded."""
    columns, recorded = [checks.index[name] for name in totals], checks.recorded
    rose = recorded.now[checks.events][:, columns] > recorded.prev[checks.events][:, columns]
    return not len(rose) or bool(rose.any())
