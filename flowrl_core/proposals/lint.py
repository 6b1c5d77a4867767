"""The lint: runs a skill's programs on transitions, to find faults that a proof cannot.

Faults of a done condition:

    done_at_reset     true in most new worlds
    done_at_entry     true as soon as the step begins, with the gains of the plan's earlier steps
    done_without_gain true in a state without any of the skill's gain
    done_unreached    false after the skill's full gain
    done_early        true before the skill's full gain

Faults of a reward (`FARMED` and `MISDIRECTED`):

    pays_idle           pays when nothing changes and the skill is not done
    pays_to_and_fro     pays for a move and its reverse together
    pays_collect_drop   pays for an item, a vital point or a place that is gained and lost again
    pays_total          pays for a total that is not damage dealt to the skill's target
    pays_nothing        pays nothing for the skill's gain
    never_pays          pays nothing in recorded transitions with the skill's gain
    prefers_other       pays more for something else than for the skill's gain

A condition that was never true on recorded transitions is not a fault: skills exist for rare events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flowrl_core.proposals.model import Finding
from flowrl_core.proposals.program_checks import Judged, ProgramChecks, program_checks_of
from flowrl_core.proposals.recorded_transitions import RecordedTransitions
from flowrl_core.proposals.synthetic_transitions import cycles, idle_moments, other_gains
from flowrl_core.proposals.totals import paid_rise
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.text import counted

__all__ = ["FARMED", "MISDIRECTED", "lint"]

FARMED = frozenset({"pays_idle", "pays_to_and_fro", "pays_collect_drop", "pays_total"})
MISDIRECTED = frozenset({"pays_nothing", "never_pays", "prefers_other"})

# A sum of float32 rewards this close to 0 counts as 0.
_NOTHING = 1e-5
_MOST = 0.5
_FEWEST_EVENTS = 10
_STEPS = 300
"""Environment steps of the hypothetical episode in the evidence."""


def lint(skill: Skill, plan: Plan, knowledge: Knowledge, recorded: RecordedTransitions) -> tuple[Finding, ...]:
    """Return the faults of a skill's programs on recorded and synthetic transitions, in the order above.

    Args:
        skill: its programs are accepted by the language.
        plan: verified; ends with the skill.
        knowledge: contains the plan's other skills.
        recorded: transitions of the same environment.
    """
    checks = program_checks_of(skill, plan, knowledge, recorded)
    found = (check(checks) for check in _CHECKS)
    return tuple(finding for finding in found if finding is not None)


def _found(code: str, sentence: str, evidence: str) -> Finding:
    return Finding("transitions", code, sentence, evidence)


def _done_too_soon(checks: ProgramChecks) -> Finding | None:
    worlds = checks.recorded.new_worlds
    for n in checks.counts:
        for is_laid in (False, True) if checks.entry else (False,):
            true = checks.judge(worlds, n, is_laid=is_laid).done
            if true.mean() <= _MOST:
                continue
            evidence = f"with n = {n} it is true in {true.sum()} of {len(true)} new worlds"
            if is_laid:
                held = ", ".join(f"{name} = {value}" for name, value in checks.entry.items())
                sentence = "done is true when the step begins: require a change by the step itself, as `since.X`"
                return _found("done_at_entry", sentence, f"{evidence} in which the plan has provided {held}")
            sentence = "done is true in a new world: require a change by the skill, as `since.X >= n`"
            return _found("done_at_reset", sentence, evidence)
    return None


def _done_without_gain(checks: ProgramChecks) -> Finding | None:
    recorded = checks.recorded
    gained = [checks.index[name] for name in checks.skill.gain]
    registers = recorded.transitions[:, (recorded.now[:, gained] == 0).all(axis=1)]
    for n in checks.counts:
        for is_laid in (False, True) if checks.entry else (False,):
            true = checks.judge(registers, n, is_laid=is_laid).done
            if true.any():
                sentence = "done is true without the skill's gain: require the gain as well, joined by `and`"
                evidence = f"with n = {n} it is true in {true.sum()} of {len(true)} recorded states without"
                return _found("done_without_gain", sentence, f"{evidence} {' and '.join(checks.skill.gain)}")
    return None


def _done_at_the_end(checks: ProgramChecks) -> Finding | None:
    """Check that done becomes true with the full declared gain; only decidable if it reads nothing else."""
    if not {fluent.name for fluent in checks.layout.told(checks.done.fluents)} <= _told(checks):
        return None
    for n in checks.counts:
        done = checks.walked[n].done
        brought = ", ".join(f"{amount.at(n)} of {name}" for name, amount in checks.skill.gain.items())
        if not done.any():
            sentence = "done asks for more than the skill gains: use the same amounts in `gain` and `done`"
            evidence = f"with n = {n}, done is false after the skill has gained {brought}"
            return _found("done_unreached", sentence, evidence)
        units = max(amount.at(n) for amount in checks.skill.gain.values())
        first = len(done) - 1 - int(done.argmax())
        if 0 < first < units:
            sentence = "done asks for less than the skill gains: use the same amounts in `gain` and `done`"
            evidence = f"with n = {n}, done is true {first} units before the skill has gained {brought}"
            return _found("done_early", sentence, evidence)
    return None


def _pays_idle(checks: ProgramChecks) -> Finding | None:
    made_up, recorded = idle_moments(checks), checks.recorded.idle
    for n in checks.lasting_counts:
        moments = [(made_up, False)]
        if n in checks.counts:
            moments += [(recorded, False), (recorded, True)] if checks.entry else [(recorded, False)]
        for registers, is_laid in moments:
            judged = checks.judge(registers, n, is_laid=is_laid)
            pay = np.where(judged.done, np.float32(0), judged.reward)
            k = int(pay.argmax())
            if pay[k] > _NOTHING:
                best = _best_step(checks, checks.skill.learn_count)
                evidence = (
                    f"standing still {_where(checks, registers[:, k])} pays {pay[k]:.3g} per step; {_STEPS} steps earn "
                    f"{_STEPS * pay[k]:.1f}, a step of what it gains {best:.3g}"
                )
                sentence = "the reward pays for standing still: pay for a change, as `gained.X`, not for a state"
                return _found("pays_idle", sentence, evidence)
    return None


def _pays_to_and_fro(checks: ProgramChecks) -> Finding | None:
    sentence = (
        "the reward pays for moving back and forth: let moving away cost what moving closer pays, as `closer.X` does"
    )
    forth, back = checks.recorded.moves
    for n in checks.counts if forth.shape[1] else ():
        for is_laid in (False, True) if checks.entry else (False,):
            there = checks.judge(forth, n, is_laid=is_laid)
            again = checks.judge(back, n, is_laid=is_laid)
            pay = np.where(there.done | again.done, np.float32(0), there.reward + again.reward)
            k = int(pay.argmax())
            if pay[k] > _NOTHING:
                first, second = there.reward[k], again.reward[k]
                evidence = f"a recorded move pays {first:.3g} and its reverse {second:.3g}: {_earned(pay[k], 2)}"
                return _found("pays_to_and_fro", sentence, evidence)
    return _cycle(checks, "pays_to_and_fro", sentence, ("distance",))


def _pays_collect_drop(checks: ProgramChecks) -> Finding | None:
    sentence = "the reward pays for collecting and dropping: let a loss cost what a gain pays, as plain `gained.X` does"
    return _cycle(checks, "pays_collect_drop", sentence, ("count", "vital", "place"))


def _pays_total(checks: ProgramChecks) -> Finding | None:
    found = paid_rise(checks, above=_NOTHING)
    if found is None:
        return None
    fluent, states, pay = found
    sentence = (
        f"the reward pays for {fluent.name}, of which there is no end: pay only for blows at the skill's target, as "
        "`0.1 * gained.dealt.X` with the target X"
    )
    values = " -> ".join(f"{state[checks.index[fluent.name]]:g}" for state in states)
    evidence = f"{fluent.name} {values} pays {pay:.3g}, and so on all through an episode until it is {fluent.high}"
    return _found("pays_total", sentence, evidence)


def _cycle(checks: ProgramChecks, code: str, sentence: str, kinds: tuple[str, ...]) -> Finding | None:
    found = list(cycles(checks, kinds))
    if not found:
        return None
    for n in checks.lasting_counts:
        for (fluent, states), judged in zip(found, _along(checks, [states for _, states in found], n), strict=True):
            pay = float(judged.reward.sum())
            if pay > _NOTHING and not judged.done.any():
                values = " -> ".join(f"{state[checks.index[fluent.name]]:g}" for state in states)
                evidence = f"{fluent.name} {values} pays {' + '.join(f'{r:.3g}' for r in judged.reward)}: "
                return _found(code, sentence, evidence + _earned(pay, len(states) - 1))
    return None


def _pays_nothing(checks: ProgramChecks) -> Finding | None:
    told, unchanged = _told(checks), ("vital", "distance", "total")
    if not all(fluent.name in told or fluent.kind in unchanged for fluent in checks.read):
        return None
    for n in checks.counts:
        judged = checks.walked[n]
        last = int(judged.done.argmax()) if judged.done.any() else len(judged.done) - 1
        pay = float(judged.reward[: last + 1].sum())
        if pay <= _NOTHING:
            sentence = "the reward pays nothing for what the skill gains: pay for it, as `gained.X`"
            return _found("pays_nothing", sentence, f"with n = {n}, gaining it all pays {pay:.3g}")
    return None


def _never_pays(checks: ProgramChecks) -> Finding | None:
    if len(checks.events) < _FEWEST_EVENTS or checks.most_recorded > _NOTHING:
        return None
    sentence = "the reward pays nothing where what the skill gains was recorded: pay for it, as `gained.X`"
    gained = f"{checks.skill.progress} was gained {counted(len(checks.events), 'time')}"
    evidence = f"{gained} in the recorded transitions but never rewarded"
    return _found("never_pays", sentence, evidence)


def _prefers_other(checks: ProgramChecks) -> Finding | None:
    others = list(other_gains(checks))
    if not others:
        return None
    for n in checks.counts:
        own = _best_step(checks, n)
        pays = np.array([one.reward.sum() for one in _along(checks, [states for _, states in others], n)])
        k = int(pays.argmax())
        if pays[k] > own + _NOTHING:
            name = others[k][0]
            sentence = f"the reward pays more for {name} than for what the skill gains: lower it or remove it"
            evidence = f"{name} pays {pays[k]:.3g}, a step of what the skill gains {own:.3g}"
            return _found("prefers_other", sentence, evidence)
    return None


_CHECKS: tuple[Callable[[ProgramChecks], Finding | None], ...] = (
    _done_too_soon, _done_without_gain, _done_at_the_end, _pays_idle, _pays_to_and_fro, _pays_collect_drop, _pays_total,
    _pays_nothing, _never_pays, _prefers_other,
)  # fmt: skip


def _along(checks: ProgramChecks, paths: Sequence[Sequence[np.ndarray]], n: int) -> list[Judged]:
    """Return the programs' results along each of the paths, which are judged all at once."""
    judged = checks.judge(np.concatenate([checks.registers_along(states) for states in paths], axis=1), n)
    ends = np.cumsum([len(states) - 1 for states in paths])[:-1]
    return [Judged(*parts) for parts in zip(np.split(judged.done, ends), np.split(judged.reward, ends), strict=True)]


def _told(checks: ProgramChecks) -> set[str]:
    """Return the base fluents whose change the definition determines."""
    skill = checks.skill
    names = {*skill.gain, *skill.requirements, *skill.consumption}
    return names | {f"dist.{name.removeprefix('near.')}" for name in names if name in checks.recorded.beside}


def _best_step(checks: ProgramChecks, n: int) -> float:
    """Return the largest reward for one step of the declared gain, synthetic or recorded."""
    return max(float(checks.walked[n].reward.max()), checks.most_recorded)


def _where(checks: ProgramChecks, registers: np.ndarray) -> str:
    held = {name: registers[checks.layout.slots[name].index] for name in checks.reward.fluents if name != "n"}
    shown = ", ".join(f"{name} = {value:g}" for name, value in held.items() if value)
    return f"with {shown}" if shown else "with nothing in hand"


def _earned(pay: float, steps: int) -> str:
    rounds = _STEPS // steps
    return f"{rounds} rounds earn {rounds * pay:.1f}"
