"""Every training and evaluation field can be set per campaign, per skill and by the knowledge base, and is recorded."""

import json
import typing

import pytest
from corridor_runs import KNOWLEDGE

from flowrl_core.learning.learner import hyperparameters
from flowrl_core.learning.shapes import shapes_of
from flowrl_core.skills.model import MAX_STEPS
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.overrides import resolve
from flowrl_core.specs.skill import EvaluationSpec, SkillConfig, TrainingSpec
from flowrl_core.stages.skill.context import open_run
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.storage.layout import URL_VARIABLE, Home, RunDirectory
from flowrl_core.storage.registry import Registry

GROUPS = {"training": TrainingSpec, "evaluation": EvaluationSpec}
FIELDS = [(group, field) for group, model in GROUPS.items() for field in model.model_fields]
SMALL = {"width": 8, "max_experts": 1}


def others(group, field):
    """Two values of the field other than its default (of two that there are: the other one, and the default)."""
    info = GROUPS[group].model_fields[field]
    if info.annotation is bool:
        return not info.default, info.default
    if typing.get_origin(info.annotation) is typing.Literal:
        (other,) = set(typing.get_args(info.annotation)) - {info.default}
        return other, info.default
    if info.annotation is int:
        return (info.default * 2, info.default * 4) if info.default else (1, 2)
    return info.default / 2, info.default / 4


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    return Home(tmp_path / "home")


def recorded(home, spec, skill, **own):
    """The field groups that the sealed run of a skill has: as its file says, and as its stages read them."""
    with Registry.open(home) as registry:
        registry.campaigns.record(spec, KNOWLEDGE.skills)
        attempt = registry.skill_runs.begin(spec.campaign, registry.skills.get(spec.campaign, skill).identity)
        path = prepare(home, attempt.run, resolve(skill, spec, **own))
        read = open_run(home, registry, attempt.run).config
        assert registry.skill_runs.get(attempt.run).config == read
    told = json.loads(RunDirectory(path).config.read_text())["parameters"]
    assert SkillConfig.model_validate(told) == read
    return told


@pytest.mark.parametrize(("group", "field"), FIELDS, ids=lambda value: value)
def test_a_field_set_for_the_campaign_and_for_one_skill_is_in_their_configurations(empty_home, group, field):
    campaigns, skills = others(group, field)
    groups = {"training": dict(SMALL), "evaluation": {}}
    groups[group][field] = campaigns
    override = f"goto_bench.{field}={str(skills).lower()}"
    spec = CampaignSpec(env="corridor", targets=["dig_a"], overrides=[override], **groups)
    by_campaign = recorded(empty_home, spec, "dig_a")
    by_skill = recorded(empty_home, spec, "goto_bench")
    assert by_campaign[group][field] == campaigns
    assert by_skill[group][field] == skills != campaigns
    for other in GROUPS:  # and nothing else changed
        for name in GROUPS[other].model_fields:
            if name != field:
                assert by_campaign[other][name] == by_skill[other][name] == getattr(getattr(spec, other), name)


@pytest.mark.parametrize("field", ["frames", "threshold", "final_learning_rate_share", "stop_hopeless"])
def test_the_knowledge_bases_own_value_beats_the_campaigns_and_an_override_beats_both(empty_home, field):
    group = "training" if field in TrainingSpec.model_fields else "evaluation"
    campaigns, own = others(group, field)
    spec = CampaignSpec(env="corridor", targets=["dig_a"], **({"training": SMALL} | {group: {field: campaigns}}))
    assert recorded(empty_home, spec, "dig_a", **{group: {field: own}})[group][field] == own
    stronger = spec.model_copy(update={"overrides": [f"dig_a.{field}={campaigns}"]})
    assert getattr(getattr(resolve("dig_a", stronger, **{group: {field: own}}), group), field) == campaigns


@pytest.mark.parametrize("merge", ["most_frames", "frozen"])
def test_the_merge_policy_is_recorded(empty_home, merge):
    spec = CampaignSpec(env="corridor", targets=["dig_a"], training=SMALL, limits={"merge": merge})
    assert recorded(empty_home, spec, "dig_a")["merge"] == merge


def test_every_training_field_reaches_a_shape_a_hyperparameter_or_a_stage():
    """A field that nothing reads would be recorded and mean nothing."""
    default = SkillConfig().training
    elsewhere = {
        "frames": "the budget", "snapshot_fraction": "the rollout", "shaping": "the rollout", "world_uses": "the pool",
        "final_learning_rate_share": "the schedule", "final_entropy_share": "the schedule", "seed": "the streams",
        "checkpoint_updates": "train", "episode_limit": "the plan", "action_masks": "the plan", "guards": "the plan",
        "canonical_view": "the expert", "compass": "the expert",
    }  # fmt: skip
    for field in TrainingSpec.model_fields:
        changed = default.model_copy(update={field: others("training", field)[0]})
        numbers = hyperparameters(changed) != hyperparameters(default)
        shapes = shapes_of("corridor", changed, 1) != shapes_of("corridor", default, 1)
        assert numbers + shapes + (field in elsewhere) == 1, field


def test_room_for_experts_grows_by_powers_of_two():
    training = TrainingSpec(max_experts=8)
    assert [shapes_of("corridor", training, number).num_experts for number in (1, 8, 9, 17, 33)] == [8, 8, 16, 32, 64]
    assert MAX_STEPS == 24
