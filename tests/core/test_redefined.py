"""A skill whose definition changes: its new expert starts from the head of the earlier one, and status says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import registry_steps
from corridor_runs import KNOWLEDGE, begin, drive, make_spec

from flowrl_core.errors import StorageError
from flowrl_core.programs.model import Program
from flowrl_core.skills.experts import expert_slice
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.context import open_run
from flowrl_core.stages.skill.directory import run_directory
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.remarks import remarks
from flowrl_core.storage.checkpoints import content_hash, load_tree
from flowrl_core.storage.database import writing
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.registry.rows.library import add_version
from flowrl_core.types import View

DIG = KNOWLEDGE.skills["dig_a"]
SKILLS = {**KNOWLEDGE.skills, "dig_a": replace(DIG, program=Program("since.a >= n", "2 * gained.a"))}
SPEC = make_spec("changed", "dig_a")
FIGHTS = {"eat_cow": "1752ea4b5e5a828b", "defeat_zombie": "57dc4e905d030ea3", "defeat_skeleton": "90742949ecfc862e"}
"""The identities that the fights had while their rewards held no blows."""


def prepared(home, spec=SPEC, skills=SKILLS):
    """A run of `dig_a` that is sealed: its record."""
    run = begin(home, spec, "dig_a", skills=skills).run
    prepare(home, run, resolve("dig_a", spec))
    with Registry.open(home) as registry:
        return registry.skill_runs.get(run)


def seed(record):
    (version,) = record.seeds.values()
    return version


def head(home, skill=DIG):
    with Registry.open(home) as registry:
        return registry.library.expert(skill.identity("corridor")).head


def said(home, spec=SPEC):
    """What status says of `dig_a`."""
    with Registry.open(home) as registry:
        campaign = registry.campaigns.get(spec.campaign)
        return remarks(registry, campaign, registry.skills.figures(campaign.name))["dig_a"]


def test_the_new_expert_starts_from_the_earlier_ones_head_and_its_version_names_it(home):
    earlier, record = head(home), prepared(home)
    (expert,) = record.remap
    assert seed(record) == earlier.id and expert != earlier.expert
    params, _ = load_tree(run_directory(home, record).seed)
    assert content_hash(expert_slice(params, record.remap[expert])) == earlier.content
    assert said(home) == f"its definition has changed: started from version {earlier.id}, of the earlier one"
    assert drive(home, record.id, record.config).verdict == "learned"
    now = head(home, SKILLS["dig_a"])
    assert (now.expert, now.parent) == (expert, earlier.id) and now.frames > earlier.frames
    assert head(home) == earlier, "the earlier definition keeps its own"
    assert "its definition has changed" in said(home)


def test_a_skill_with_one_definition_starts_anew_and_nothing_is_said(home):
    spec = make_spec("same", "make_b")
    run = begin(home, spec, "make_b").run
    prepare(home, run, resolve("make_b", spec))
    with Registry.open(home) as registry:
        own = registry.library.expert(KNOWLEDGE.skills["make_b"].identity("corridor"))
        assert registry.skill_runs.get(run).seeds[own.global_index] is None
    assert "definition" not in said(home, spec)


@pytest.mark.parametrize("others", [{"training": {"width": 16}}, {"fresh": True}])
def test_an_expert_of_another_size_or_line_is_not_started_from(home, others):
    record = prepared(home, make_spec("changed", "dig_a", **others))
    assert seed(record) is None
    assert said(home) == ""


def test_the_last_of_several_earlier_definitions_is_started_from(home):
    first = prepared(home)
    drive(home, first.id, first.config)
    third = {**SKILLS, "dig_a": replace(DIG, program=Program("since.a >= n", "3 * gained.a"))}
    assert seed(prepared(home, make_spec("again", "dig_a"), third)) == head(home, SKILLS["dig_a"]).id


def test_where_the_earlier_version_is_lost_the_expert_is_initialised(home):
    shutil.rmtree(home.version(head(home).content))
    assert seed(prepared(home)) is None


def test_from_scratch_it_begins_anew(home):
    attempt = begin(home, SPEC, "dig_a", skills=SKILLS)
    prepare(home, attempt.run, resolve("dig_a", SPEC))
    with Registry.open(home) as registry:
        registry.skill_runs.commit(attempt.run, verdict="failed", run_frames=1, results=[], policy="most_frames")
        registry.attempts.end(attempt.id, "verdict")
    assert seed(prepared(home, SPEC.model_copy(update={"retry": ["dig_a"], "from_scratch": True}))) is None


def test_the_shipped_fights_that_pay_for_blows_start_from_the_experts_that_were_not_paid_for_them(new_home):
    new = {name: load_knowledge("craftax-classic").skills[name] for name in FIGHTS}
    old = {
        name: replace(
            one,
            program=Program(one.program.done, f"(1 if new_ach.{name} else 0) + 0.1 * d.health"),
            target=name.partition("_")[2],
            requirements={},
            guard=None,
            guards=(),
            begins_as=None,
        )
        for name, one in new.items()
    }
    assert {name: one.identity("craftax-classic") for name, one in old.items()} == FIGHTS
    spec = registry_steps.make_spec(env="craftax-classic", targets=list(FIGHTS))
    with Registry.open(new_home) as registry:
        registry_steps.start(registry, spec, old)
        for index, name in enumerate(FIGHTS):
            registry_steps.learn(registry, [name], {index: (name, 100)})
        registry_steps.start(registry, spec.model_copy(update={"campaign": "later"}), new)
        for name, skill in new.items():
            expert = registry.library.allocate(skill.identity("craftax-classic"), **registry_steps.SIZES)
            earlier = registry.library.earlier_head(expert.global_index)
            assert expert.head is None and earlier is not None and earlier.content == name


def test_a_skill_begins_as_the_head_of_another_one_and_counts_its_own_frames_alone(home):
    more = replace(DIG, name="dig_more", begins_as="goto_bench")
    spec = make_spec("beginning", "dig_more")
    run = begin(home, spec, "dig_more", skills={**KNOWLEDGE.skills, "dig_more": more}).run
    prepare(home, run, resolve("dig_more", spec))
    bench = head(home, KNOWLEDGE.skills["goto_bench"])
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
    (expert,) = record.remap
    params, _ = load_tree(run_directory(home, record).seed)
    assert content_hash(expert_slice(params, record.remap[expert])) == bench.content
    assert drive(home, run, record.config).verdict == "learned"
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        own = registry.library.version(registry.library.expert(more.identity("corridor")).head.id)
        campaign = registry.campaigns.get("beginning")
        said_of = remarks(registry, campaign, registry.skills.figures("beginning"))["dig_more"]
    assert seed(record) == bench.id != own.id and own.parent == bench.id
    assert own.frames == record.run_frames, "goto_bench's frames are its own"
    assert said_of == f"began as version {bench.id} of goto_bench"


def test_an_expert_sees_as_the_one_that_it_begins_as_and_else_as_its_run_says(new_home):
    bench = KNOWLEDGE.skills["goto_bench"]
    skills = {
        "begins": replace(DIG, name="begins", begins_as="goto_bench"),
        "goto_bench": replace(bench, program=Program(bench.program.done, "0")),
        "new": replace(DIG, name="new"),
    }
    spec = registry_steps.make_spec(targets=["goto_bench"])
    with Registry.open(new_home) as registry:
        registry_steps.start(registry, spec, {"goto_bench": bench})
        registry.library.allocate(bench.identity("corridor"), **registry_steps.SIZES, view=View.CANONICAL)
        registry_steps.learn(registry, ["goto_bench"], {0: ("bench", 100)})
        registry_steps.start(registry, spec.model_copy(update={"campaign": "later", "targets": list(skills)}), skills)
        for name, skill in skills.items():
            expert = registry.library.allocate(skill.identity("corridor"), **registry_steps.SIZES)
            assert expert.view == (View.PLAIN if name == "new" else View.CANONICAL), name


@pytest.mark.parametrize(("said", "view"), [({}, View.PLAIN), ({"canonical": ["dig_a"]}, View.CANONICAL)])
def test_a_run_sealed_by_an_earlier_version_sees_what_its_plan_said_then(home, said, view):
    record = prepared(home)
    file = run_directory(home, record).plan
    steps = json.loads(file.read_text())
    assert steps.pop("views") == {"dig_a": View.CANONICAL | View.COMPASS}
    file.write_text(json.dumps(steps | said))
    with Registry.open(home) as registry:
        assert (open_run(home, registry, record.id).plan_arrays().view == view).all()


def test_a_version_comes_from_no_expert_of_another_skill(home):
    record = prepared(home)
    (expert,) = record.remap
    with Registry.open(home) as registry:
        other = registry.library.expert(KNOWLEDGE.skills["goto_bench"].identity("corridor")).head
        refused = pytest.raises(StorageError, match=f"version {other.id} belongs to expert")
        with writing(registry.library.engine) as tx, refused:
            add_version(tx, record.id, expert, "0" * 64, routed_frames=1, parent=other.id)
