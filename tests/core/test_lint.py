"""The lint by transitions: each fault of a program is found by its code, and what skills need passes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.programs.language import check_reward
from flowrl_core.programs.model import Program
from flowrl_core.proposals.lint import lint
from flowrl_core.proposals.model import Finding
from flowrl_core.proposals.potential import potential_form
from flowrl_core.proposals.recorded_transitions import load_transitions
from flowrl_core.skills.knowledge import Knowledge, load_knowledge
from flowrl_core.skills.model import Linear, Skill
from flowrl_core.skills.planner import make_plan

N, ONE = Linear(1, 0), Linear(0, 1)


@lru_cache
def shipped(env: str) -> Knowledge:
    return load_knowledge(env)


def changed(name: str, env: str = "craftax-classic", **fields: Any) -> Skill:
    """A shipped skill with other programs or effects."""
    skill = shipped(env).skills[name]
    program = Program(fields.pop("done", skill.program.done), fields.pop("reward", skill.program.reward))
    return replace(skill, program=program, **fields)


def faults(skill: Skill, env: str = "craftax-classic") -> dict[str, Finding]:
    knowledge = replace(shipped(env), skills={**shipped(env).skills, skill.name: skill})
    found = lint(skill, make_plan(knowledge, skill.name), knowledge, load_transitions(env))
    assert all(finding.gate == "transitions" and finding.sentence and finding.evidence for finding in found)
    return {finding.code: finding for finding in found}


SHIPPED = [(env, name) for env in ("corridor", "craftax-classic") for name in shipped(env).skills]


@pytest.mark.parametrize(("env", "name"), SHIPPED)
def test_every_shipped_skill_passes(env: str, name: str) -> None:
    assert not faults(shipped(env).skills[name], env)


@pytest.mark.parametrize(("env", "name"), SHIPPED)
def test_the_potential_form_of_every_shipped_skill_passes_and_is_mostly_its_own_reward(env: str, name: str) -> None:
    skill = shipped(env).skills[name]
    form = potential_form(skill, shipped(env).vocabulary)
    check_reward(form, shipped(env).vocabulary)
    assert form == skill.program.reward
    assert not faults(replace(skill, program=replace(skill.program, reward=form)), env)


REWARDS = [
    # skill, reward, codes of which each must be found
    ("collect_wood", "0.1 if inv.wood >= 1 else 0", {"pays_idle"}),
    ("collect_wood", "0.1 * since.wood", {"pays_idle"}),
    ("collect_stone", "0.1 * since.stone", {"pays_idle"}),
    ("collect_wood", "1 - dist.tree / 8", {"pays_idle"}),
    ("collect_wood", "gained.wood + 0.01 * health", {"pays_idle"}),
    ("collect_wood", "gained.wood + (0.01 if near.crafting_table else 0)", {"pays_idle", "pays_collect_drop"}),
    ("collect_wood", "gained.wood + max(closer.tree, 0)", {"pays_to_and_fro"}),
    ("collect_wood", "gained.wood + (0.1 if closer.tree > 0 else 0)", {"pays_to_and_fro"}),
    ("collect_wood", "gained.wood + 0.1 * clip(closer.tree, -1, 1)", {"pays_to_and_fro"}),
    ("collect_stone", "max(gained.stone, 0)", {"pays_collect_drop"}),
    ("collect_wood", "1 if gained.wood > 0 else 0", {"pays_collect_drop"}),
    ("collect_wood", "clip(gained.wood, -1, 1)", {"pays_collect_drop"}),
    ("collect_wood", "gained.wood + max(d.health, 0)", {"pays_collect_drop"}),
    ("collect_wood", "gained.wood + 0.5 * max(d.food, 0)", {"pays_collect_drop"}),
    ("collect_stone", "max(gained.stone, 0) if near.crafting_table else 0", {"pays_collect_drop"}),
    ("collect_wood", "d.health", {"pays_nothing", "never_pays", "prefers_other"}),
    ("collect_wood", "closer.tree", {"pays_nothing", "never_pays", "prefers_other"}),
    ("collect_wood", "gained.stone", {"never_pays", "prefers_other"}),
    ("collect_wood", "gained.wood + 2 * gained.sapling", {"prefers_other"}),
    ("collect_wood", "gained.wood + (5 if new_ach.eat_cow else 0)", {"prefers_other"}),
    ("collect_wood", "gained.wood + 3 * closer.tree", {"prefers_other"}),
    ("collect_wood", "-gained.wood", {"pays_nothing", "never_pays"}),
    ("collect_wood", "1 if gained.wood > 0 and energy < 1 else 0", {"pays_nothing", "never_pays"}),
    ("collect_wood", "gained.wood + 0.1 * gained.dealt.zombie", {"pays_total"}),
    ("collect_wood", "gained.wood + 0.1 * gained.taken.damage", {"pays_total"}),
    ("collect_wood", "gained.wood - 0.01 + tanh(gained.dealt.cow)", {"pays_total"}),
    ("collect_wood", "gained.wood - 1 + 0.1 * gained.dealt.zombie", {"pays_total"}),
    ("collect_wood", "gained.wood - (0.01 if gained.dealt.cow < 1 else 0)", {"pays_total"}),
    ("collect_wood", "gained.wood + (0.01 if gained.dealt.cow == 2 else 0)", {"pays_total"}),
    ("collect_wood", "gained.wood + (0.1 * gained.dealt.cow if near.furnace else 0)", {"pays_total"}),
    ("collect_wood", "gained.wood + 0.1 * since.dealt.cow", {"pays_idle", "pays_total"}),
    ("eat_cow", "(1 if new_ach.eat_cow else 0) + 0.1 * gained.dealt.zombie", {"pays_total"}),
    ("eat_cow", "(1 if new_ach.eat_cow else 0) + 0.1 * gained.taken.damage", {"pays_total"}),
    ("eat_cow", "(1 if new_ach.eat_cow else 0) + 0.5 * gained.dealt.cow", {"prefers_other"}),
    ("eat_cow", "(1 if new_ach.eat_cow else 0) + (0.5 if gained.dealt.cow == 1 else 0)", {"prefers_other"}),
    ("eat_cow", "0.1 * gained.dealt.cow", {"pays_nothing"}),
    ("eat_cow", "(1 if new_ach.eat_cow else 0) + 0.01 * dealt.cow", {"pays_idle"}),
    ("place_table", "1 if near.crafting_table else 0", {"pays_idle"}),
    ("place_table", "0.1 * inv.wood", {"pays_idle"}),
]


@pytest.mark.parametrize(("name", "reward", "codes"), REWARDS)
def test_a_reward_that_teaches_something_else_is_found(name: str, reward: str, codes: set[str]) -> None:
    assert codes <= set(faults(changed(name, reward=reward)))


DONES = [
    ("collect_sapling", "dist.grass <= 1", "done_at_reset"),
    ("collect_wood", "dist.tree <= 7 and inv.stone < n", "done_at_reset"),
    ("make_wood_pickaxe", "near.crafting_table and inv.wood >= n", "done_at_entry"),
    ("collect_stone", "inv.wood_pickaxe >= 1", "done_at_entry"),
    ("collect_stone", "since.stone >= n or dist.stone <= 1", "done_without_gain"),
    ("collect_stone", "since.stone >= n or health < 5", "done_without_gain"),
    ("collect_stone", "since.stone >= 2 * n", "done_unreached"),
    ("collect_wood", "inv.wood >= n + 1", "done_unreached"),
    ("collect_wood", "new_ach.collect_wood and since.wood >= n", "done_unreached"),
    ("collect_wood", "since.wood >= 1", "done_early"),
    ("collect_stone", "inv.stone >= n and inv.wood_pickaxe >= 2", "done_unreached"),
]


@pytest.mark.parametrize(("name", "done", "code"), DONES)
def test_a_done_that_says_something_else_than_the_gain_is_found(name: str, done: str, code: str) -> None:
    assert code in faults(changed(name, done=done, learn_count=2))


GOOD = [
    changed(
        "collect_wood",
        done="near.crafting_table and inv.wood >= n",
        reward="gained.wood + 0.1 * d.health",
        requirements={"near.crafting_table": ONE},
        gain={"inv.wood": N},
    ),
    changed("collect_wood", reward="gained.wood + 0.05 * closer.tree"),
    changed("collect_wood", reward="gained.wood - 0.001"),
    changed("collect_wood", reward="10 * gained.wood + d.health + d.food + d.drink + d.energy"),
    changed("collect_wood", reward="(1 if new_ach.collect_wood else 0) + gained.wood"),
    changed("collect_wood", gain={"inv.wood": N}, reward="1 if new_ach.collect_wood else 0"),
    changed("collect_diamond", done="since.diamond >= n and dist.zombie > 3 and energy < 2"),
    changed("place_table", done="near.crafting_table", reward="0.2 * closer.crafting_table"),
    changed("collect_stone", gain={"inv.stone": Linear(2, 0)}, done="since.stone >= 2 * n"),
    changed("eat_cow", reward="(1 if new_ach.eat_cow else 0) + 0.05 * closer.cow + 0.1 * d.food"),
    changed("make_wood_pickaxe", reward="1 if new_ach.make_wood_pickaxe else 0"),
    changed("eat_cow", reward="(1 if new_ach.eat_cow else 0) + 0.3 * gained.dealt.cow + 0.1 * d.health"),
    changed("defeat_zombie", reward="(1 if new_ach.defeat_zombie else 0) + 0.1 * tanh(gained.dealt.zombie)"),
    changed("defeat_zombie", reward="(1 if new_ach.defeat_zombie else 0) - 0.05 * gained.taken.damage"),
    changed("collect_wood", reward="gained.wood - 0.1 * gained.dealt.cow"),
]


@pytest.mark.parametrize("skill", GOOD, ids=lambda skill: skill.program.reward)
def test_what_skills_need_passes(skill: Skill) -> None:
    if skill.requirements.get("near.crafting_table") and "inv.wood" in skill.gain:
        skill = replace(skill, name="collect_wood_at_table")  # the table needs the wood of the other one
    assert not faults(skill)


@pytest.mark.parametrize(
    ("reward", "code"),
    [("max(closer.bench, 0)", "pays_to_and_fro"), ("1 if closer.bench > 0 else 0", "pays_to_and_fro"),
     ("6 - dist.bench", "pays_idle"), ("closer.mine", "never_pays"), ("gained.a", "prefers_other")],
)  # fmt: skip
def test_the_corridors_faults_are_found(reward: str, code: str) -> None:
    assert code in faults(changed("goto_bench", "corridor", reward=reward), "corridor")


def test_evidence_carries_numbers() -> None:
    found = faults(changed("collect_wood", reward="0.1 * inv.wood"))["pays_idle"]
    assert found.evidence.startswith("standing still with inv.wood = ")
    assert "300 steps earn " in found.evidence
    found = faults(changed("collect_stone", reward="max(gained.stone, 0)"))["pays_collect_drop"]
    assert found.evidence == "inv.stone 0 -> 1 -> 0 pays 1 + 0: 150 rounds earn 150.0"


def test_a_target_does_not_make_blows_a_part_of_a_gain_that_comes_without_them() -> None:
    """Zombies as the target of collecting wood: wood was recorded to come without a blow."""
    wood = changed("collect_wood", target="zombie", reward="gained.wood + 0.1 * gained.dealt.zombie")
    found = faults(wood)["pays_total"]
    assert found.sentence.startswith("the reward pays for dealt.zombie, of which there is no end")
    assert found.evidence == "dealt.zombie 0 -> 1 pays 0.1, and so on all through an episode until it is 99"
    assert not faults(replace(wood, program=Program(wood.program.done, "gained.wood")))


def test_the_potential_form_pays_for_each_kind_of_gain() -> None:
    flag = changed("collect_wood", gain={"ach.eat_cow": ONE})
    assert potential_form(flag, CRAFTAX_CLASSIC) == "(1 if new_ach.eat_cow else 0) + 0.1 * d.health"
    place = changed("goto_bench", "corridor")
    assert potential_form(place, CORRIDOR) == "closer.bench"
    cow = changed("eat_cow", target="cow")
    assert potential_form(cow, CRAFTAX_CLASSIC).count("0.1 * gained.dealt.cow") == 1
    assert "dealt" not in potential_form(replace(cow, target="grass"), CRAFTAX_CLASSIC)
    both = changed("make_b", "corridor", gain={"inv.b": N, "inv.c": N})
    assert potential_form(both, CORRIDOR) == "gained.b + gained.c"
