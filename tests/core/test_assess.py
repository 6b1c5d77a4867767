"""A learned skill is measured again: as its bundle has it, or with today's heads; what was decided stays as it is."""

import numpy as np
import pytest
from corridor_runs import EVALUATION, begin, make_spec

from flowrl_core.compiled.cache import compilations
from flowrl_core.errors import InputError
from flowrl_core.stages.skill.assessment import assess
from flowrl_core.statistics import wilson_lower
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get, put

pytestmark = pytest.mark.long


def bundle_of(home, skill):
    with Registry.open(home) as registry:
        return registry.library.bundle(registry.skills.get("basics", skill).identity)


def noise(tree):
    if isinstance(tree, dict):
        return {name: noise(leaf) for name, leaf in tree.items()}
    return np.random.default_rng(0).normal(size=tree.shape).astype(tree.dtype)


def spoil_head(home, skill):
    """Another campaign's run of the skill is learned by the record, and leaves noise as its expert's head."""
    bundle = bundle_of(home, skill)
    ((index, version),) = bundle.versions.items()
    content = put(home, noise(get(home, version.content)))
    with Registry.open(home) as registry:
        run = begin(home, make_spec("spoiler", "make_b"), "make_b").run
        config = registry.skill_runs.get(bundle.run).config
        registry.skill_runs.seal(run, plan=bundle.plan, remap={index: 0}, config=config, seeds={index: version.id})
        registry.skill_runs.commit(
            run,
            verdict="learned",
            run_frames=10_000,
            results=[ExpertResult(index, content, 10_000, version.id)],
            policy="most_frames",
            bundle=BundleFacts(0.9, 0.87, 512, 0.75),
        )
        return registry.library.head(index)


def test_a_bundle_is_played_with_its_very_versions_and_recorded(home):
    bundle, before = bundle_of(home, "dig_a"), compilations()
    found = assess(home, "basics", "dig_a", of="bundle", episodes=256)
    assert compilations() == before
    assert found.versions == {index: version.id for index, version in bundle.versions.items()}
    assert (found.episodes, found.threshold, found.of, found.skill) == (256, EVALUATION.threshold, "bundle", "dig_a")
    assert found.success == found.successes / 256 > 0.9 and found.is_still_learned
    assert found.lower_bound == wilson_lower(found.successes, 256, 0.05)
    with Registry.open(home) as registry:
        (record,) = registry.evaluations.of(bundle.identity)
        assert registry.evaluations.of(registry.skills.get("basics", "goto_bench").identity) == []
    for name in ("of", "versions", "episodes", "successes", "lower_bound"):
        assert getattr(record, name) == getattr(found, name)
    assert (record.id, record.level, len(record.steps)) == (found.evaluation, 0.05, 1)
    assert bundle_of(home, "dig_a") == bundle


def test_no_two_assessments_share_worlds_and_none_shares_those_of_a_look(home):
    for of in ("bundle", "heads", "bundle"):
        assess(home, "basics", "dig_a", of=of, episodes=16)
    assess(home, "basics", "goto_bench", of="bundle", episodes=16)
    with Registry.open(home) as registry:
        used = []
        for skill in ("dig_a", "goto_bench"):
            identity = registry.skills.get("basics", skill).identity
            used += [record.worlds for record in registry.evaluations.of(identity)]
            used += [look.worlds for look in registry.skill_runs.looks(registry.library.bundle(identity).run)]
    assert len(used) >= 6 and len(set(used)) == len(used)


def test_heads_that_were_spoiled_are_told_and_the_bundle_is_as_good_as_ever(home):
    head = spoil_head(home, "dig_a")
    heads = assess(home, "basics", "dig_a", of="heads", episodes=256)
    bundle = assess(home, "basics", "dig_a", of="bundle", episodes=256)
    assert list(heads.versions.values()) == [head.id] != list(bundle.versions.values())
    assert heads.lower_bound < heads.threshold and not heads.is_still_learned
    assert bundle.is_still_learned
    with Registry.open(home) as registry:
        assert registry.skills.facts("basics")["dig_a"].learned, "a verdict stands"
        assert registry.library.head(head.expert) == head


@pytest.mark.parametrize(
    ("campaign", "skill", "episodes", "said"),
    [
        ("nobody", "dig_a", 16, "there is no campaign 'nobody'"),
        ("basics", "dig_b", 16, "there is no skill 'dig_b'. Did you mean dig_a"),
        ("basics", "make_b", 16, "skill: 'make_b' is not learned yet"),
        ("basics", "dig_a", 100, "episodes: 100 is not a multiple of num_envs .16.. Use, for example, 96"),
        ("basics", "dig_a", 0, "episodes: 0 is not positive"),
    ],
)
def test_what_cannot_be_assessed_is_refused_by_name_and_leaves_no_record(home, campaign, skill, episodes, said):
    with pytest.raises(InputError, match=said):
        assess(home, campaign, skill, of="bundle", episodes=episodes)
    assert assess(home, "basics", "dig_a", of="bundle", episodes=16).evaluation == 1, "no number was used up"


def test_an_assessment_that_was_killed_counts_for_nothing_and_its_worlds_are_not_used_again(home):
    bundle = bundle_of(home, "dig_a")
    with Registry.open(home) as registry:
        killed = registry.evaluations.begin(bundle.identity, "bundle", {0: 1}, episodes=16, level=0.05)
        assert registry.evaluations.of(bundle.identity) == []
    assert assess(home, "basics", "dig_a", of="bundle", episodes=16).evaluation > killed
