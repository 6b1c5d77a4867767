"""Lines of the library, and starts that go on from failures, as the registry records them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from registry_steps import SIZES, SKILLS, begin, commit, make_spec, start

from flowrl_core.errors import ConflictError, InputError
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.skill import SkillConfig
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

FAILED: dict[str, Any] = {"verdict": "failed", "bundle": None, "reason": "too hard"}


@pytest.fixture
def registry(new_home: Home, database: str) -> Iterator[Registry]:
    """One with a campaign of the shared library and two with libraries of their own."""
    with Registry.open(new_home) as opened:
        opened.campaigns.record(make_spec(), SKILLS)
        for name in ("one", "two"):
            opened.campaigns.record(make_spec(campaign=name, fresh=True), SKILLS)
        yield opened


def end(registry: Registry, campaign: str, name: str, content: str, **ending: Any) -> int:
    """A run of the skill alone, from its beginning to its end; its id."""
    attempt = begin(registry, name, campaign)
    line = registry.campaigns.get(campaign).line
    index = registry.library.allocate(attempt.subject, line=line, **SIZES).global_index
    before = registry.skill_runs.predecessor(attempt.run)
    seeds = {index: registry.skill_runs.merges(before.id)[0].version if before else None}
    registry.skill_runs.seal(
        attempt.run, plan=Plan(name, (Step(name, 1),)), remap={index: 0}, config=SkillConfig(), seeds=seeds
    )
    commit(registry, attempt.run, {index: (content, 50)}, **ending)
    registry.attempts.end(attempt.id, "verdict")
    return attempt.run


# Lines


def test_a_definition_has_an_expert_a_head_and_a_bundle_in_each_line(registry: Registry) -> None:
    for campaign in ("default", "one", "two"):
        end(registry, campaign, "wood", f"of {campaign}")
    assert [(e.line, e.name, e.head and e.head.content) for e in registry.library.experts()] == [
        ("", "wood", "of default"),
        ("one", "wood", "of one"),
        ("two", "wood", "of two"),
    ]
    identity = registry.skills.get("default", "wood").identity
    for index, line in enumerate(("", "one", "two")):
        expert, bundle = registry.library.expert(identity, line=line), registry.library.bundle(identity, line=line)
        assert expert and bundle and (expert.global_index, bundle.line) == (index, line)
        assert list(bundle.versions) == [index] and expert.bundle == bundle.id
        assert [one for one in registry.library.experts() if one.line == line] == [expert]
        assert [run.id for run in registry.skill_runs.of(identity, line=line)] == [bundle.run]
    assert len(registry.skill_runs.of(identity)) == 3


def test_what_one_line_learned_another_does_not_know(registry: Registry) -> None:
    end(registry, "one", "wood", "a")
    assert {name: registry.skills.facts(name)["wood"].learned for name in ("default", "one", "two")} == {
        "default": False,
        "one": True,
        "two": False,
    }
    figures = registry.skills.figures("two")["wood"]
    assert (figures.expert, figures.bundle, figures.run) == (None, None, None)
    end(registry, "default", "wood", "b")
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    assert registry.skills.figures("other")["wood"].run_campaign == "default"
    assert registry.skills.figures("one")["wood"].run_campaign == "one"


def test_two_lines_may_have_an_attempt_of_one_definition_outstanding_and_one_line_may_not(registry: Registry) -> None:
    first = begin(registry, "wood")
    second, third = begin(registry, "wood", "one"), begin(registry, "wood", "two")
    assert first.subject == second.subject == third.subject and len({first.run, second.run, third.run}) == 3
    assert registry.skills.facts("one")["wood"].attempt == second
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    for campaign, holder in (("default", "default"), ("other", "default"), ("one", "one")):
        with pytest.raises(ConflictError, match=f"attempt 1 of campaign '{holder}' is outstanding"):
            begin(registry, "wood", campaign)


def test_a_line_takes_experts_of_its_own_size(registry: Registry) -> None:
    identity = registry.skills.get("default", "wood").identity
    registry.library.allocate(identity, **SIZES)
    with pytest.raises(InputError, match=r"has 8, this run 16.*a library of its own \(fresh\)"):
        registry.library.allocate(identity, **SIZES | {"width": 16})
    assert registry.library.allocate(identity, line="one", **SIZES | {"width": 16}).width == 16


def test_a_campaign_keeps_its_library(registry: Registry) -> None:
    for spec in (make_spec(campaign="one"), make_spec(campaign="one", targets=[])):
        assert registry.campaigns.effective_spec(spec).line == "one"
        again = start(registry, spec)
        assert (again.line, again.spec.fresh) == ("one", True)
    for spec in (make_spec(fresh=True), make_spec(fresh=True, targets=[])):
        with pytest.raises(InputError, match="campaign 'default' was started in the shared library") as refused:
            registry.campaigns.record(spec, SKILLS)
        assert refused.value.field == "fresh"
    assert registry.campaigns.get("default").line == ""


# Going on from failures


def retry(registry: Registry, campaign: str = "default", **changes: Any) -> None:
    start(registry, make_spec(campaign=campaign, retry=["wood"], **changes))


def test_a_retried_skill_goes_on_from_its_last_failed_run(registry: Registry) -> None:
    for campaign in ("default", "one"):
        first = end(registry, campaign, "wood", f"{campaign} 1", **FAILED)
        retry(registry, campaign)
        second = end(registry, campaign, "wood", f"{campaign} 2", **FAILED)
        retry(registry, campaign)
        third = end(registry, campaign, "wood", f"{campaign} 3")
        before = [registry.skill_runs.predecessor(run) for run in (first, second, third)]
        assert [run and run.id for run in before] == [None, first, second]
        expert = next(one for one in registry.library.experts() if one.line == registry.campaigns.get(campaign).line)
        versions = registry.library.versions(expert.global_index)
        assert [version.frames for version in versions] == [50, 100, 150]
        assert [version.parent for version in versions] == [None, versions[0].id, versions[1].id]
        assert expert.head == versions[2]


def test_from_scratch_it_begins_anew_until_a_later_start_says_otherwise(registry: Registry) -> None:
    first = end(registry, "default", "wood", "a", **FAILED)
    retry(registry, from_scratch=True)
    assert registry.campaigns.get("default").spec.from_scratch is False, "a start's own word"
    begun = begin(registry, "wood")
    registry.attempts.end(begun.id, "infrastructure", "killed before it was prepared")
    start(registry, make_spec())
    assert begin(registry, "wood").run == begun.run and registry.skill_runs.predecessor(begun.run) is None
    registry.skill_runs.fail(begun.run, "it diverged")
    registry.attempts.end(registry.attempts.outstanding("default")[0].id, "verdict")
    retry(registry)
    again = registry.skill_runs.predecessor(begin(registry, "wood").run)
    assert again is not None and again.id == first, "the run that diverged left no version"


def test_a_run_that_nobody_asked_to_retry_goes_on_from_none(registry: Registry) -> None:
    end(registry, "default", "wood", "a", **FAILED)
    registry.campaigns.record(make_spec(campaign="other"), SKILLS)
    for run in (begin(registry, "wood", "other").run, begin(registry, "wood", "one").run):
        assert registry.skill_runs.predecessor(run) is None


def test_what_a_failed_skill_would_go_on_from_is_needed_until_it_is_learned(registry: Registry) -> None:
    needed = registry.library.needed_contents
    end(registry, "one", "wood", "a", **FAILED)
    assert needed() == {"a"}
    retry(registry, "one")
    end(registry, "one", "wood", "b", **FAILED)
    assert needed() == {"b"}
    end(registry, "default", "wood", "of the shared library")
    assert needed() == {"b", "of the shared library"}
    retry(registry, "one")
    end(registry, "one", "wood", "c")
    assert needed() == {"c", "of the shared library"}


def test_a_start_may_change_the_overrides_of_skills_to_retry_and_of_no_others(registry: Registry) -> None:
    wood, table = "wood.frames=100000", "table.frames=7e4"
    registry.campaigns.record(make_spec(campaign="set", overrides=[wood, table]), SKILLS)
    end(registry, "set", "wood", "a", **FAILED)
    for changed in (["wood.frames=2e5"], ["table.frames=8e4"], ["wood.seed=1"]):
        with pytest.raises(InputError, match=r"'set' was started.*not with '.*failed, add retry = \[") as refused:
            registry.campaigns.record(make_spec(campaign="set", overrides=changed), SKILLS)
        assert refused.value.field == f"overrides.{changed[0].partition('=')[0]}"
    with pytest.raises(InputError, match=r"overrides.table.frames"):
        retry(registry, "set", overrides=["wood.frames=2e5", "table.frames=8e4"])
    assert registry.campaigns.get("set").spec.overrides == [wood, table]
    start(registry, make_spec(campaign="set", overrides=["wood.frames=1e5"]))  # the same number
    retry(registry, "set", overrides=["wood.frames=2e5", "wood.looks=8"])
    assert registry.campaigns.get("set").spec.overrides == [table, "wood.frames=2e5", "wood.looks=8"]
    retry(registry, "set", targets=[], overrides=["wood.frames=3e5"])
    assert registry.campaigns.get("set").spec.overrides == [table, "wood.looks=8", "wood.frames=3e5"]


def test_an_override_that_would_come_too_late_is_refused(registry: Registry) -> None:
    attempt = begin(registry, "wood")
    retry(registry, overrides=["wood.frames=2e5"])  # not prepared yet
    index = registry.library.allocate(attempt.subject, **SIZES).global_index
    plan = Plan("wood", (Step("wood", 1),))
    registry.skill_runs.seal(attempt.run, plan=plan, remap={index: 0}, config=SkillConfig(), seeds={index: None})
    with pytest.raises(InputError, match=r"wood\.frames: a run of wood has begun with other settings"):
        retry(registry, overrides=["wood.frames=3e5"])
    commit(registry, attempt.run, {index: ("a", 50)})
    with pytest.raises(InputError, match=r"wood\.frames: wood is learned"):
        retry(registry, overrides=["wood.frames=3e5"])
    retry(registry, overrides=["wood.frames=2e5"])  # the same command once more
