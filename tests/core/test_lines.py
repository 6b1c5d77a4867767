"""Campaigns with a library of their own: several results of one definition, side by side in one home."""

from __future__ import annotations

import pytest
from corridor_runs import KNOWLEDGE, begin, copy_home, drive, learn, make_spec

from flowrl_core.errors import InputError
from flowrl_core.skills.frontier import frontier
from flowrl_core.skills.skill_states import known_states
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.proposals.context import read_context
from flowrl_core.stages.skill.assessment import assess
from flowrl_core.stages.skill.campaign_check import check_campaign
from flowrl_core.stages.skill.remarks import learned_before
from flowrl_core.stages.upkeep.families import FAMILIES
from flowrl_core.storage.backup import backup, restore
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get

SEEDS = (0, 1, 2)


def fresh(seed, **changes):
    return make_spec(f"seed-{seed}", "dig_a", training={"seed": seed}, fresh=True, **changes)


@pytest.fixture(scope="module")
def side_by_side(basics, tmp_path_factory):
    """A home with a shared library, and with three campaigns that have learned `dig_a` once more, each with a seed."""
    home = copy_home(basics, tmp_path_factory.mktemp("lines") / "home")
    for seed in SEEDS:
        assert learn(home, fresh(seed), "dig_a")[1].verdict == "learned"
    return home


def experts(home, name="dig_a"):
    """The experts of a skill by line."""
    with Registry.open(home) as registry:
        return {expert.line: expert for expert in registry.library.experts() if expert.name == name}


def test_three_seeds_of_a_skill_are_three_experts_beside_the_shared_one_and_none_is_overwritten(basics, side_by_side):
    found = experts(side_by_side)
    assert list(found) == ["", "seed-0", "seed-1", "seed-2"]
    assert found[""] == experts(basics)[""], "the shared one is as it was"
    assert len({expert.head.content for expert in found.values()}) == 4
    for expert in found.values():
        get(side_by_side, expert.head.content)  # whole, which compares it with its name
    with Registry.open(side_by_side) as registry:
        bundles = [registry.library.bundle(one.identity, line=line) for line, one in found.items()]
        assert [list(bundle.versions.values()) for bundle in bundles] == [[one.head] for one in found.values()]
        assert (
            len({run.config.training.seed for run in map(registry.skill_runs.get, (b.run for b in bundles[1:]))}) == 3
        )


def test_what_a_campaign_knows_is_what_its_own_library_holds(side_by_side):
    with Registry.open(side_by_side) as registry:
        known = {name: registry.skills.facts(name) for name in ("basics", "seed-1")}
        learned = {name: {skill for skill, fact in facts.items() if fact.learned} for name, facts in known.items()}
        assert learned == {"basics": {"dig_a", "goto_bench"}, "seed-1": {"dig_a"}}
        ready = {name: frontier(KNOWLEDGE, ["make_b"], known_states(facts)).ready for name, facts in known.items()}
        assert ready == {"basics": ("make_b",), "seed-1": ("goto_bench",)}
        context = read_context(registry, "seed-1", fresh(1), KNOWLEDGE)
        assert context.figures["dig_a"].run_campaign == "seed-1" and not context.facts["goto_bench"].learned


def test_a_skill_of_the_shared_library_is_not_said_to_be_learned_before_in_a_library_of_its_own(side_by_side):
    with Registry.open(side_by_side) as registry:
        other = registry.campaigns.record(make_spec("other", "dig_a", training={"seed": 2}), KNOWLEDGE.skills)
        told = learned_before(registry, other, registry.skills.figures("other"))
        assert told["dig_a"] == "already learned by campaign basics with seed 0 (here 2)"
        own = registry.campaigns.get("seed-2")
        assert learned_before(registry, own, registry.skills.figures("seed-2")) == {}


def test_a_result_does_not_depend_on_what_else_the_home_holds(basics, side_by_side, tmp_path):
    alone = Home(tmp_path / "alone")
    alone.root.mkdir()
    alone.cache.symlink_to(basics.cache)
    learn(alone, fresh(2), "dig_a")
    assert experts(alone)["seed-2"].head.content == experts(side_by_side)["seed-2"].head.content


def test_a_skill_of_a_library_of_its_own_is_built_upon_and_measured_there(side_by_side, tmp_path):
    home = copy_home(side_by_side, tmp_path / "home")
    before = {line: expert.head for line, expert in experts(home).items()}
    spec = fresh(1).model_copy(update={"targets": ["make_b"]})
    for skill in ("goto_bench", "make_b"):
        attempt = begin(home, spec, skill)
        assert drive(home, attempt.run, resolve(skill, spec)).verdict == "learned"
    with Registry.open(home) as registry:
        run = registry.skill_runs.get(attempt.run)
        lines = {one.global_index: one.line for one in registry.library.experts()}
        assert {lines[index] for index in run.remap} == {"seed-1"}
        assert before["seed-1"].id in run.seeds.values()
    after = {line: expert.head for line, expert in experts(home).items()}
    assert after.pop("seed-1").parent == before.pop("seed-1").id and after == before
    measured = assess(home, "seed-1", "make_b", of="heads", episodes=32)
    assert measured.line == "seed-1" and set(measured.versions) == set(run.remap)
    with pytest.raises(InputError, match="'make_b' is not learned yet"):
        assess(home, "seed-2", "make_b", of="bundle", episodes=32)


def test_a_backup_holds_every_line(side_by_side, tmp_path):
    restored = Home(tmp_path / "restored")
    backup(side_by_side, tmp_path / "backup", FAMILIES)
    restore(tmp_path / "backup", restored, FAMILIES)
    assert experts(restored) == experts(side_by_side)
    with Registry.open(restored) as registry:
        assert registry.campaigns.get("seed-1").line == "seed-1"
        assert all(get(restored, version.content) for version in registry.library.relied_on())


def test_the_name_of_the_shared_library_is_no_name_for_another(side_by_side):
    with Registry.open(side_by_side) as registry, pytest.raises(InputError, match="^campaign: 'shared' is the name"):
        spec = make_spec("shared", "dig_a", fresh=True)
        check_campaign(read_context(registry, "shared", spec, KNOWLEDGE))
