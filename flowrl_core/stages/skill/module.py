"""The generated module of a run: readable Python that states what is trained, with the maps of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flowrl_core.skills.experts import Remap
from flowrl_core.skills.model import Plan, Skill
from flowrl_core.skills.symbolic import kept
from flowrl_core.vocabulary.model import Vocabulary

__all__ = ["module_text"]

_HEADER = '''"""How {target} is trained: one plan step after another, each with its expert, count and program.

Written by FlowRL when the run was prepared. It is a record; nothing reads it back.
"""
'''


def module_text(
    plan: Plan, skills: Mapping[str, Skill], experts: Mapping[str, int], remap: Remap, words: Vocabulary
) -> str:
    """The text of `module.py`: constants only, no imports, equal to `plan.json` and `remap.json`.

    Args:
        experts: global index of each skill of the plan.
    """
    lines = [
        _HEADER.format(target=plan.target),
        "# Experts of the library (global) and their contiguous places in this run (local).",
        f"GLOBAL_TO_LOCAL = {dict(remap.global_to_local)!r}",
        f"LOCAL_TO_GLOBAL = {dict(remap.local_to_global)!r}",
        "",
        f"TARGET = {plan.target!r}",
        "STEPS = [",
    ]
    fluents = {fluent.name: fluent for fluent in words.fluents}
    for step, keeps in zip(plan.steps, kept(plan, skills, fluents), strict=True):
        lines += _step(skills[step.skill], step.n, remap.global_to_local[experts[step.skill]], keeps)
    lines += ["]", "", "# Skills that take over in any step while their condition holds, by priority.", "GUARDS = ["]
    for name in plan.guards:
        lines += _guard(skills[name], remap.global_to_local[experts[name]])
    return "\n".join([*lines, "]"]) + "\n"


def _step(skill: Skill, n: int, local: int, keeps: Mapping[str, int]) -> list[str]:
    program = {"done": skill.program.done, "keeps": dict(keeps), "reward": skill.program.reward}
    return _record(skill, {"skill": skill.name, "n": n, "expert": local, **program, "target": skill.target})


def _guard(skill: Skill, local: int) -> list[str]:
    assert skill.guard is not None
    return _record(skill, {"skill": skill.name, "expert": local, **asdict(skill.guard), "target": skill.target})


def _record(skill: Skill, record: Mapping[str, Any]) -> list[str]:
    # repr: a description may contain any character, and this text must stay a comment.
    about = repr(" ".join(skill.description.split()))[1:-1]
    return [f"    # {about}", "    {", *(f"        {key!r}: {value!r}," for key, value in record.items()), "    },"]
