"""A later start: what it takes from the earlier start of the campaign, and what is given."""

import pytest
import registry_steps

from flowrl_core.errors import InputError
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.specs.campaign import CampaignSpec, parse_campaign
from flowrl_core.specs.continuation import with_all_targets, without_defaults
from flowrl_core.storage.layout import URL_VARIABLE, Home
from flowrl_core.storage.registry import Registry

SKILLS = load_knowledge(shipped("corridor")).skills
FIRST = {
    "campaign": "night",
    "env": "corridor",
    "targets": ["make_b"],
    "knowledge": "corridor",
    "training": {"width": 16, "frames": 5_000},
    "evaluation": {"threshold": 0.6},
    "limits": {"max_parallel": 3, "merge": "frozen"},
    "overrides": ["make_b.seed=7"],
}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    with Registry.open(Home(tmp_path / "home")) as registry:
        yield registry


def start(registry, **parameters):
    return registry_steps.start(registry, registry.campaigns.effective_spec(parse_campaign(**parameters)), SKILLS)


def test_it_has_all_settings_of_the_earlier_start(registry):
    first = start(registry, **FIRST)
    again = start(registry, campaign="night")
    assert again.spec == first.spec and again.start == first.start + 1


def test_all_targets_that_were_ever_asked_for_are_meant(registry):
    start(registry, **FIRST)
    start(registry, **FIRST | {"targets": ["make_c"]})
    assert start(registry, campaign="night").targets == ("make_b", "make_c")


def test_all_skills_are_added_to_the_targets_and_remain_them_when_the_knowledge_base_grows(registry):
    start(registry, **FIRST)
    form = {**CampaignSpec().model_dump(), "campaign": "night", "all": True}
    asked = registry.campaigns.effective_spec(without_defaults(parse_campaign(**form)))
    assert (asked.all, asked.targets, asked.training.width) == (True, [], 16)
    some = ["dig_a", "make_c"]
    registry.campaigns.record(with_all_targets(asked, some), SKILLS)
    assert start(registry, campaign="night").targets == ("make_b", *some)
    spec = with_all_targets(parse_campaign(all=True, targets=["make_c", "make_c"]), SKILLS)
    assert spec.targets == ["make_c", *(name for name in SKILLS if name != "make_c")] and not spec.all
    assert with_all_targets(spec, ["other"]) == spec


def test_what_may_change_is_changed_by_what_is_given(registry):
    start(registry, **FIRST)
    spec = registry.campaigns.effective_spec(
        parse_campaign(campaign="night", limits={"max_retries": 9}, retry=["dig_a"])
    )
    assert (spec.limits.max_retries, spec.limits.max_parallel, spec.retry) == (9, 3, ["dig_a"])
    assert start(registry, campaign="night", limits={"max_retries": 9}).spec.limits.max_retries == 9
    assert start(registry, campaign="night", limits={"max_retries": 2}).spec.limits.max_retries == 2, "the default"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"training": {"frames": 7}}, "training.frames"),
        ({"limits": {"merge": "evaluated"}}, "limits.merge"),
        ({"limits": {"merge": "most_frames"}}, "limits.merge"),  # the default
        ({"targets": ["make_c"], "training": {"frames": 4_000_000}}, "training.frames"),
        ({"targets": ["make_c"], "env": "craftax-classic"}, "env"),
        ({"knowledge": ""}, "knowledge"),
    ],
)
def test_what_must_stay_is_refused_with_its_name(registry, given, field):
    before = start(registry, **FIRST)
    with pytest.raises(InputError, match="was started with") as refused:
        start(registry, campaign="night", **given)
    assert refused.value.field == field
    assert registry.campaigns.get("night") == before


@pytest.mark.parametrize("targets", [[], ["make_c"]])
def test_a_later_start_keeps_what_must_stay_and_of_a_form_all_that_equals_its_default(registry, targets):
    first = start(registry, **FIRST, frontier={"kind": "hybrid", "model": "openai:NAME"}).spec
    filled = {**CampaignSpec().model_dump(), "campaign": "night", "targets": targets}
    form = registry.campaigns.effective_spec(without_defaults(parse_campaign(**filled)))
    assert form == registry.campaigns.effective_spec(parse_campaign(campaign="night", targets=targets))
    fixed = [(spec.env, spec.knowledge, spec.training, spec.evaluation, spec.limits.merge) for spec in (form, first)]
    assert fixed[0] == fixed[1]
    free = (form.limits.max_parallel, form.frontier.kind)
    assert free == ((8, "knowledge") if targets else (3, "hybrid")), "with targets, they are as given"


def test_without_an_earlier_start_it_is_refused_and_nothing_is_recorded(registry):
    with pytest.raises(InputError, match="there is no campaign 'night' to resume.*campaign: none") as refused:
        registry.campaigns.effective_spec(parse_campaign(campaign="night"))
    assert refused.value.field == "targets"
    with pytest.raises(InputError, match="targets"):
        registry.campaigns.record(parse_campaign(campaign="night", env="corridor"), SKILLS)
    start(registry, **FIRST)
    with pytest.raises(InputError, match="campaign: night"):
        registry.campaigns.effective_spec(parse_campaign(campaign="day"))
    assert [campaign.name for campaign in registry.campaigns.all()] == ["night"]
