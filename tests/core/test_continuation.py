"""A start without targets: the earlier start of the campaign again, with what is given besides."""

import pytest
import registry_steps

from flowrl_core.errors import InputError
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.specs.campaign import parse_campaign
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


def test_what_may_change_is_changed_by_what_is_given(registry):
    start(registry, **FIRST)
    spec = registry.campaigns.effective_spec(
        parse_campaign(campaign="night", limits={"max_retries": 9}, retry=["dig_a"])
    )
    assert (spec.limits.max_retries, spec.limits.max_parallel, spec.retry) == (9, 3, ["dig_a"])
    assert start(registry, campaign="night", limits={"max_retries": 9}).spec.limits.max_retries == 9


@pytest.mark.parametrize(
    ("given", "field"),
    [({"training": {"frames": 7}}, "training.frames"), ({"limits": {"merge": "evaluated"}}, "limits.merge")],
)
def test_what_must_stay_is_refused_with_its_name(registry, given, field):
    before = start(registry, **FIRST)
    with pytest.raises(InputError, match="was started with") as refused:
        start(registry, campaign="night", **given)
    assert refused.value.field == field
    assert registry.campaigns.get("night") == before


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
