"""The gates that check a definition's programs: by proof, and on recorded transitions."""

from __future__ import annotations

import re
from dataclasses import replace

from flowrl_core.errors import ProgramError
from flowrl_core.programs.language import Checked, check_done, check_reward
from flowrl_core.programs.model import Program
from flowrl_core.programs.parsing import MAX_LENGTH
from flowrl_core.programs.registers import change_name, registers_of
from flowrl_core.proposals.gate_context import GateContext, mended, refused
from flowrl_core.proposals.lint import FARMED, MISDIRECTED, lint
from flowrl_core.proposals.model import Examination, Finding
from flowrl_core.proposals.potential import potential_form
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["look_at_transitions", "look_at_programs"]

_FENCE = re.compile(r"\s*```[A-Za-z]*\s(.*?)```\s*", re.DOTALL)
_QUOTES = ("`", '"', "'")


def look_at_programs(examination: Examination, context: GateContext) -> Examination:
    """The gate `program`: both expressions are proven, and done reads part of the skill's gain.

    Codes: those of `programs.language`, and `done_reads_no_gain`. Repair: `unwrapped` (fence or quotes removed).
    """
    program, vocab = examination.repaired.skill.program, context.knowledge.vocabulary
    bare = Program(_bare(program.done), _bare(program.reward))
    if bare != program:
        wrapped = " and ".join(part for part in ("done", "reward") if getattr(bare, part) != getattr(program, part))
        note = Finding("program", "unwrapped", f"{wrapped}: the text around the expression is removed")
        examination = mended(examination, note, program=bare)
    found: list[Finding] = []
    checked: Checked | None = None
    try:
        checked = check_done(bare.done, vocab)
    except ProgramError as exc:
        found.append(_refusal(exc))
    try:
        check_reward(bare.reward, vocab)
    except ProgramError as exc:
        found.append(_refusal(exc))
    gain = examination.repaired.skill.gain
    told = {*gain, *(f"dist.{name.removeprefix('near.')}" for name in gain if name.startswith("near."))}
    if checked is not None and not any(one.name in told for one in registers_of(vocab).told(checked.fluents)):
        sentence = f"done does not depend on the skill's gain. Use {' or '.join(_readings(list(gain)[:3], vocab))}"
        found.append(Finding("program", "done_reads_no_gain", sentence))
    return refused(examination, *found) if found else examination


def look_at_transitions(examination: Examination, context: GateContext) -> Examination:
    """The gate `transitions`: the programs behave correctly on recorded and synthetic transitions.

    Codes: those of `lint`. Repair: `potential_form`, if only the reward is wrong and that form passes the lint.
    """
    if examination.plan is None:
        raise ValueError("the transitions gate comes after the plan")
    skill, plan = examination.repaired.skill, examination.plan
    found = lint(skill, plan, context.knowledge, context.recorded)
    if found and {finding.code for finding in found} <= FARMED | MISDIRECTED:
        better = replace(
            skill, program=replace(skill.program, reward=potential_form(skill, context.knowledge.vocabulary))
        )
        try:
            is_sound = not lint(better, plan, context.knowledge, context.recorded)
        except ProgramError:  # the repaired reward may contain the done condition and be too long
            is_sound = False
        if is_sound:
            sentence = f"the reward is replaced by `{better.program.reward}`: {found[0].sentence}"
            evidence = "; ".join(f"{finding.code}: {finding.evidence}" for finding in found)
            note = Finding("transitions", "potential_form", sentence, evidence)
            return mended(examination, note, program=better.program)
    return refused(examination, *found) if found else examination


def _bare(text: str) -> str:
    """Return the text without a surrounding markdown fence, quotes or backticks."""
    if len(text) > 2 * MAX_LENGTH:
        return text
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced[1].strip()
    inner = text.strip()
    while len(inner) > 2 and inner[0] in _QUOTES and inner[0] == inner[-1]:
        inner = inner[1:-1].strip()
        text = inner
    return text


def _refusal(exc: ProgramError) -> Finding:
    problem = exc.problem.removeprefix(f"[{exc.code}] ")
    return Finding("program", exc.code, f"{exc.field}: {problem}. {exc.remedy}")


def _readings(gain: list[str], vocab: Vocabulary) -> list[str]:
    """Return the names with which a done condition reads each gained fluent."""
    slots = registers_of(vocab).slots
    return [change if (change := change_name("since", name)) in slots else name for name in gain]
