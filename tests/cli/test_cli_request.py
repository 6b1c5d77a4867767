"""What is typed or written in a file reaches the campaign: each argument, for all skills or for one."""

from __future__ import annotations

import pytest

from flowrl_cli import session
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs import EvaluationSpec, TrainingSpec, parse_campaign
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

DEFAULTS = {"training": TrainingSpec(), "evaluation": EvaluationSpec()}
OTHER = {
    ("training", "credit"): "terminal",
    ("training", "action_masks"): True,
    ("training", "num_envs"): 32,
    ("evaluation", "episodes"): 1024,
    ("evaluation", "head_episodes"): 256,
}
FIELDS = [(group, name) for group, spec in DEFAULTS.items() for name in type(spec).model_fields]


def another(group: str, name: str) -> object:
    """A valid value that is not the default."""
    default = getattr(DEFAULTS[group], name)
    if (group, name) in OTHER:
        return OTHER[group, name]
    return default + 1 if isinstance(default, int) else default / 2


@pytest.fixture
def requested(monkeypatch, flowrl_here):
    """The request that a command line comes to, instead of its campaign."""

    def request_of(*arguments: str):
        found = []
        monkeypatch.setattr(session, "run_campaign", lambda request, *, keep: found.append(request) or 0)
        done = flowrl_here("campaign", "--env", "corridor", "--target", "make_b", *arguments)
        assert done.returncode == 0, done.stderr
        return found[0]

    return request_of


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_each_argument_can_be_set_for_the_campaign_and_for_one_skill(requested, group, name):
    value = another(group, name)
    option = f"--{group}.{name.replace('_', '-')}"
    typed = [option] if value is True else [option, str(value)]
    by_skill = {skill: getattr(getattr(c, group), name) for skill, c in requested(*typed).configs.items()}
    assert by_skill == {"dig_a": value, "goto_bench": value, "make_b": value}
    configs = requested("--override", f"make_b.{name}={value}").configs
    assert getattr(getattr(configs["make_b"], group), name) == value
    assert configs["dig_a"] == requested().configs["dig_a"]


def test_what_is_typed_wins_over_the_file_field_by_field(requested, home):
    (home.parent / "c.toml").write_text('campaign = "filed"\n[training]\nseed = 3\nepochs = 2\n')
    spec = requested("--config", "c.toml", "--training.epochs", "1").spec
    assert (spec.campaign, spec.targets) == ("filed", ["make_b"])
    assert (spec.training.seed, spec.training.epochs, spec.training.clip) == (3, 1, 0.2)


def test_a_knowledge_file_is_named_by_its_absolute_path(requested, home):
    from flowrl_core.skills.knowledge import shipped

    (home.parent / "k.toml").write_text(shipped("corridor").read_text())
    assert requested("--knowledge", "k.toml").spec.knowledge == str(home.parent / "k.toml")
    assert requested("--knowledge", "corridor").spec.knowledge == "corridor"


def test_a_campaign_without_targets_goes_on_as_it_was(home, flowrl_here, refused, monkeypatch):
    before = parse_campaign(campaign="night", env="corridor", targets=["make_b"], training={"frames": 7_000})
    with Registry.open(Home(home)) as registry:
        registry.start_campaign(before, load_knowledge("corridor").skills)
    found = []
    monkeypatch.setattr(session, "run_campaign", lambda request, *, keep: found.append(request) or 0)
    assert flowrl_here("campaign", "--campaign", "night", "--limits.max-parallel", "3").returncode == 0
    spec = found[0].spec
    assert spec == before.model_copy(update={"limits": before.limits.model_copy(update={"max_parallel": 3})})
    refused(flowrl_here("campaign", "--campaign", "day"), "targets", "'day'", "night")
