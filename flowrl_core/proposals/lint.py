"""The lint by experience: what a proof cannot see in a skill's programs shows when they are run.

Of a done condition:

    done_at_reset     true in most new worlds
    done_at_entry     true already when the step begins with what the plan brings
    done_without_gain true where nothing of what the skill gains is there
    done_unreached    not true when all that the skill gains is there
    done_early        true before all that the skill gains is there

Of a reward (`FARMED` and `MISDIRECTED`):

    pays_idle           pays where nothing changes and the skill is not done
    pays_to_and_fro     pays for a move and its reverse together
    pays_collect_drop   pays for a thing, a point or a place that comes and goes again
    pays_nothing        nothing for what the skill gains
    never_pays          nothing where what it gains was recorded
    prefers_other       more for something else than for what it gains

A condition that was never seen true is no fault: rare things are what skills are for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowrl_core.proposals.model import Finding
from flowrl_core.proposals.program_checks import Trials, base_of, trials_of
from flowrl_core.proposals.recorded_transitions import Experience
from flowrl_core.proposals.synthetic_transitions import cycles, idle_moments, other_gains
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Plan, Skill

__all__ = ["FARMED", "MISDIRECTED", "lint"]

FARMED = frozenset({"pays_idle", "pays_to_and_fro", "pays_collect_drop"})
MISDIRECTED = frozenset({"pays_nothing", "never_pays", "prefers_other"})

# A sum of float32 rewards that is this near to 0 is 0.
_NOTHING = 1e-5
_MOST = 0.5
_FEWEST_EVENTS = 10
_STEPS = 300
"""Environment steps of the episode that evidence speaks of."""


def lint(skill: Skill, plan: Plan, knowledge: Knowledge, experience: Experience) -> tuple[Finding, ...]:
    """What is wrong with a skill's programs by experience, in the order above.

    Args:
        skill: with programs that the language accepts.
        plan: proven, ends with the skill.
        knowledge: has the plan's other skills.
        experience: of the same environment.
    """
    trials = trials_of(skill, plan, knowledge, experience)
    found = (check(trials) for check in _CHECKS)
    return tuple(finding for finding in found if finding is not None)


def _found(code: str, sentence: str, evidence: str) -> Finding:
    return Finding("experience", code, sentence, evidence)


def _done_too_soon(trials: Trials) -> Finding | None:
    worlds = trials.experience.new_worlds
    for n in trials.counts:
        for is_laid in (False, True) if trials.entry else (False,):
            true = trials.judge(worlds, n, is_laid=is_laid).done
            if true.mean() <= _MOST:
                continue
            evidence = f"with n = {n} it is true in {true.sum()} of {len(true)} new worlds"
            if is_laid:
                held = ", ".join(f"{name} = {value}" for name, value in trials.entry.items())
                sentence = "done is true when the step begins: demand what the step itself must change, as `since.X`"
                return _found("done_at_entry", sentence, f"{evidence} in which the plan has brought {held}")
            sentence = "done is true in a new world: demand what the skill must change, as `since.X >= n`"
            return _found("done_at_reset", sentence, evidence)
    return None


def _done_without_gain(trials: Trials) -> Finding | None:
    experience = trials.experience
    gained = [trials.index[name] for name in trials.skill.gain]
    registers = experience.transitions[:, (experience.now[:, gained] == 0).all(axis=1)]
    for n in trials.counts:
        for is_laid in (False, True) if trials.entry else (False,):
            true = trials.judge(registers, n, is_laid=is_laid).done
            if true.any():
                sentence = "done is true without anything that the skill gains: demand that as well, joined by `and`"
                evidence = f"with n = {n} it is true in {true.sum()} of {len(true)} recorded states without"
                return _found("done_without_gain", sentence, f"{evidence} {' and '.join(trials.skill.gain)}")
    return None


def _done_at_the_end(trials: Trials) -> Finding | None:
    """Whether done is true exactly when all of the declared gain is there; who can tell reads nothing else."""
    if not all(name == "n" or base_of(name) in _told(trials) for name in trials.done.fluents):
        return None
    for n in trials.counts:
        done = trials.walked[n].done
        brought = ", ".join(f"{amount.at(n)} of {name}" for name, amount in trials.skill.gain.items())
        if not done.any():
            sentence = "done asks for more than the skill gains: let `gain` and `done` speak of the same amounts"
            evidence = f"with n = {n}, done is false after the skill has brought {brought}"
            return _found("done_unreached", sentence, evidence)
        units = max(amount.at(n) for amount in trials.skill.gain.values())
        first = len(done) - 1 - int(done.argmax())
        if 0 < first < units:
            sentence = "done asks for less than the skill gains: let `gain` and `done` speak of the same amounts"
            evidence = f"with n = {n}, done is true {first} units before the skill has brought {brought}"
            return _found("done_early", sentence, evidence)
    return None


def _pays_idle(trials: Trials) -> Finding | None:
    made_up, recorded = idle_moments(trials), trials.experience.idle
    for n in trials.lasting_counts:
        moments = [(made_up, False)]
        if n in trials.counts:
            moments += [(recorded, False), (recorded, True)] if trials.entry else [(recorded, False)]
        for registers, is_laid in moments:
            judged = trials.judge(registers, n, is_laid=is_laid)
            pay = np.where(judged.done, np.float32(0), judged.reward)
            k = int(pay.argmax())
            if pay[k] > _NOTHING:
                best = _best_step(trials, trials.skill.learn_count)
                evidence = (
                    f"standing still {_where(trials, registers[:, k])} pays {pay[k]:.3g} per step; {_STEPS} steps earn "
                    f"{_STEPS * pay[k]:.1f}, a step of what it gains {best:.3g}"
                )
                sentence = "the reward pays for standing still: pay for a change, as `gained.X`, and not for a state"
                return _found("pays_idle", sentence, evidence)
    return None


def _pays_to_and_fro(trials: Trials) -> Finding | None:
    sentence = "the reward pays for going to and fro: let going away cost what coming closer pays, as `closer.X` does"
    forth, back = trials.experience.moves
    for n in trials.counts if forth.shape[1] else ():
        for is_laid in (False, True) if trials.entry else (False,):
            there = trials.judge(forth, n, is_laid=is_laid)
            again = trials.judge(back, n, is_laid=is_laid)
            pay = np.where(there.done | again.done, np.float32(0), there.reward + again.reward)
            k = int(pay.argmax())
            if pay[k] > _NOTHING:
                first, second = there.reward[k], again.reward[k]
                evidence = f"a recorded move pays {first:.3g} and its reverse {second:.3g}: {_earned(pay[k], 2)}"
                return _found("pays_to_and_fro", sentence, evidence)
    return _cycle(trials, "pays_to_and_fro", sentence, ("distance",))


def _pays_collect_drop(trials: Trials) -> Finding | None:
    sentence = "the reward pays for what comes and goes: let a loss cost what a gain pays, as plain `gained.X` does"
    return _cycle(trials, "pays_collect_drop", sentence, ("count", "vital", "place"))


def _cycle(trials: Trials, code: str, sentence: str, kinds: tuple[str, ...]) -> Finding | None:
    found = list(cycles(trials, kinds))
    if not found:
        return None
    registers = np.concatenate([trials.registers_along(states) for _, states in found], axis=1)
    ends = np.cumsum([len(states) - 1 for _, states in found])
    for n in trials.lasting_counts:
        judged = trials.judge(registers, n)
        for (fluent, states), end in zip(found, ends, strict=True):
            own = slice(end - len(states) + 1, end)
            pay = float(judged.reward[own].sum())
            if pay > _NOTHING and not judged.done[own].any():
                values = " -> ".join(f"{state[trials.index[fluent.name]]:g}" for state in states)
                evidence = f"{fluent.name} {values} pays {' + '.join(f'{r:.3g}' for r in judged.reward[own])}: "
                return _found(code, sentence, evidence + _earned(pay, len(states) - 1))
    return None


def _pays_nothing(trials: Trials) -> Finding | None:
    told = _told(trials) | {f.name for f in trials.experience.vocabulary.fluents if f.kind in ("vital", "distance")}
    if not all(name == "n" or base_of(name) in told for name in trials.reward.fluents):
        return None
    for n in trials.counts:
        judged = trials.walked[n]
        last = int(judged.done.argmax()) if judged.done.any() else len(judged.done) - 1
        pay = float(judged.reward[: last + 1].sum())
        if pay <= _NOTHING:
            sentence = "the reward pays nothing for what the skill gains: pay for it, as `gained.X`"
            return _found("pays_nothing", sentence, f"with n = {n}, gaining it all pays {pay:.3g}")
    return None


def _never_pays(trials: Trials) -> Finding | None:
    if len(trials.events) < _FEWEST_EVENTS or trials.most_recorded > _NOTHING:
        return None
    sentence = "the reward pays nothing where what the skill gains was recorded: pay for it, as `gained.X`"
    evidence = (
        f"{trials.skill.progress} was gained {len(trials.events)} times in the recorded experience and never paid"
    )
    return _found("never_pays", sentence, evidence)


def _prefers_other(trials: Trials) -> Finding | None:
    others = list(other_gains(trials))
    if not others:
        return None
    registers = np.concatenate([trials.registers_along(states) for _, states in others], axis=1)
    for n in trials.counts:
        own = _best_step(trials, n)
        pays = trials.judge(registers, n).reward
        k = int(pays.argmax())
        if pays[k] > own + _NOTHING:
            name = others[k][0]
            sentence = f"the reward pays more for {name} than for what the skill gains: lower it or leave it out"
            evidence = f"{name} pays {pays[k]:.3g}, a step of what the skill gains {own:.3g}"
            return _found("prefers_other", sentence, evidence)
    return None


_CHECKS: tuple[Callable[[Trials], Finding | None], ...] = (
    _done_too_soon, _done_without_gain, _done_at_the_end, _pays_idle, _pays_to_and_fro, _pays_collect_drop,
    _pays_nothing, _never_pays, _prefers_other,
)  # fmt: skip


def _told(trials: Trials) -> set[str]:
    """The base fluents of which the definition tells what becomes of them."""
    skill = trials.skill
    names = {*skill.gain, *skill.requirements, *skill.consumption}
    return names | {f"dist.{name.removeprefix('near.')}" for name in names if name in trials.experience.beside}


def _best_step(trials: Trials, n: int) -> float:
    """The most that one step of the declared gain pays, made up or recorded."""
    return max(float(trials.walked[n].reward.max()), trials.most_recorded)


def _where(trials: Trials, registers: np.ndarray) -> str:
    held = {name: registers[trials.layout.slots[name].index] for name in trials.reward.fluents if name != "n"}
    shown = ", ".join(f"{name} = {value:g}" for name, value in held.items() if value)
    return f"with {shown}" if shown else "with nothing in hand"


def _earned(pay: float, steps: int) -> str:
    rounds = _STEPS // steps
    return f"{rounds} rounds earn {rounds * pay:.1f}"
