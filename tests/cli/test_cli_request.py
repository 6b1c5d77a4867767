"""What is typed or written in a file reaches the campaign: each argument, for all skills or for one."""

from __future__ import annotations

import asyncio

import pytest

from flowrl_cli import session
from flowrl_cli.request.campaign import make_request
from flowrl_core.errors import InputError
from flowrl_core.skills.knowledge import load_knowledge, shipped
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.specs.skill import EvaluationSpec, TrainingSpec
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry
from flows.campaign import campaign

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
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int) else default / 2


@pytest.fixture
def requested(monkeypatch, flowrl_here):
    """The request that a command line comes to, instead of its campaign."""

    def request_of(*arguments: str, target: str | None = "make_b"):
        found = []
        monkeypatch.setattr(session, "run_campaign", lambda request, *, keep: found.append(request) or 0)
        asked = ["--env", "corridor", "--target", target] if target else []
        done = flowrl_here("campaign", *asked, *arguments)
        assert done.returncode == 0, done.stderr
        return found[0]

    return request_of


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_each_argument_can_be_set_for_the_campaign_and_for_one_skill(requested, group, name):
    value = another(group, name)
    option = f"--{group}.{name.replace('_', '-')}"
    without = f"--{group}.no-{name.replace('_', '-')}"
    typed = {True: [option], False: [without]}[value] if isinstance(value, bool) else [option, str(value)]
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


def test_a_file_may_be_written_as_options_are(requested, home):
    """With hyphens, e-notation, a byte-order mark and other ends of lines; also under options that win."""
    lines = ["[training]", "num-envs = 32", "frames = 2e5", "learning-rate = 1e-2", "[evaluation]", "min_frames = 1e4"]
    (home.parent / "c.toml").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    spec = requested("--config", "c.toml", "--training.frames", "3E5", "--training.num_envs", "16").spec
    assert (spec.training.frames, spec.training.num_envs, spec.training.learning_rate) == (300_000, 16, 0.01)
    assert spec.evaluation.min_frames == 10_000


def test_an_override_of_a_skill_that_no_target_needs_is_said_and_changes_nothing(requested, capsys):
    request = requested("--override", "make_o.frames=7e4", "--override", "dig_a.frames=7e4")
    assert request.notes == ("--override make_o.frames: no target needs that skill, so this has no effect now",)


def test_a_knowledge_file_is_kept_in_the_home_under_the_campaigns_name(requested, home):
    text = shipped("corridor").read_bytes()
    (home.parent / "k.toml").write_bytes(text)
    request = requested("--knowledge", "k.toml", "--campaign", "mine")
    assert (request.spec.knowledge, request.knowledge_file) == ("mine.toml", text)
    assert requested("--knowledge", str(home.parent / "k.toml")).knowledge_file == text
    by_name = requested("--knowledge", "corridor")
    assert (by_name.spec.knowledge, by_name.knowledge_file) == ("corridor", None)


def test_a_knowledge_file_of_the_home_is_named_as_it_is(requested, home):
    kept = Home(home).knowledge_file("kept.toml")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(shipped("corridor").read_bytes())
    request = requested("--knowledge", "kept.toml")
    assert (request.spec.knowledge, request.knowledge_file) == ("kept.toml", None)


def test_a_campaign_without_targets_goes_on_as_it_was(requested, home, flowrl_here, refused):
    before = parse_campaign(campaign="night", env="corridor", targets=["make_b"], training={"frames": 70_000})
    with Registry.open(Home(home)) as registry:
        registry.campaigns.record(before, load_knowledge("corridor").skills)
    spec = requested("--campaign", "night", "--limits.max-parallel", "3", target=None).spec
    assert spec == before.model_copy(update={"limits": before.limits.model_copy(update={"max_parallel": 3})})
    refused(flowrl_here("campaign", "--campaign", "day"), "--target", "'day'", "night")


def test_all_means_every_skill_of_the_knowledge_base_besides_the_targets(requested, home, flowrl_here, refused):
    skills = list(load_knowledge("corridor").skills)
    asked = requested("--env", "corridor", "--all", target=None)
    assert asked.spec.targets == skills and not asked.spec.all
    assert set(asked.needs) == set(skills)
    assert requested("--all").spec.targets == ["make_b", *(name for name in skills if name != "make_b")]
    assert requested("--env", "corridor", "--all", "--target", "inv.b", target=None).spec.targets == ["inv.b", *skills]
    (home.parent / "c.toml").write_text('all = true\nenv = "corridor"\n')
    assert requested("--config", "c.toml", target=None).spec.targets == skills
    model = ("--frontier.kind", "model", "--frontier.model", "openai:NAME")
    refused(flowrl_here("campaign", "--env", "corridor", "--all", *model), "--all", "--frontier.kind hybrid")


def test_a_campaign_of_all_skills_goes_on_with_those_it_was_started_with(requested, home):
    skills = list(load_knowledge("corridor").skills)
    with Registry.open(Home(home)) as registry:
        spec = requested("--env", "corridor", "--campaign", "night", "--all", target=None).spec
        registry.campaigns.record(spec, load_knowledge("corridor").skills)
    assert requested("--campaign", "night", target=None).spec.targets == skills
    assert requested("--campaign", "night", "--all", target=None).spec.targets == skills


def test_what_is_given_to_a_later_start_counts_also_where_it_is_the_default(
    requested, home, flowrl_here, refused, monkeypatch
):
    """Options and the fields of a file; what is not given is as before, also the environment with other targets."""
    (home.parent / "k.toml").write_bytes(shipped("corridor").read_bytes())
    (home.parent / "c.toml").write_text("[training]\nframes = 6e5\n")
    changes = {"training": {"frames": 70_000, "seed": 7}, "limits": {"approval": "required"}, "knowledge": "night.toml"}
    with Registry.open(Home(home)) as registry:
        before = parse_campaign(campaign="night", env="corridor", targets=["make_b"], **changes)
        registry.campaigns.record(before, load_knowledge("corridor").skills)
    kept = Home(home).knowledge_file("night.toml")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(shipped("corridor").read_bytes())
    again = ("--campaign", "night")
    for arguments, said in (
        (("--training.frames", "600000"), "--training.frames: campaign 'night' was started with 70000, not 600000"),
        (("--training.seed", "0"), "--training.seed: campaign 'night' was started with 7, not 0"),
        (("--config", "c.toml"), "c.toml: training.frames: campaign 'night' was started with 70000, not 600000"),
        (("--env", "craftax-classic"), "--env: campaign 'night' was started with 'corridor', not 'craftax-classic'"),
        (("--knowledge", ""), "--knowledge: campaign 'night' was started with 'night.toml', not ''"),
    ):
        for more in ((), ("--target", "make_c")):
            refused(flowrl_here("campaign", *again, *arguments, *more), said)
    assert requested(*again, "--limits.approval", "none", target=None).spec.limits.approval == "none"
    assert requested(*again, "--knowledge", "k.toml", target=None).spec.knowledge == "night.toml"
    spec = requested(*again, "--target", "make_c", target=None).spec
    kept_fields = {"env": spec.env, "knowledge": spec.knowledge, "training": spec.training}
    assert kept_fields == {"env": "corridor", "knowledge": "night.toml", "training": before.training}
    assert spec.targets == ["make_c"] and spec.limits.approval == "none", "limits are as given, or the defaults"


@pytest.mark.parametrize(
    "wrong",
    [
        {"evaluation": {"episodes": 5}, "training": {"num-envs": 5}},
        {"training": {"frames": 2e3}},
        {"training": {"episode_limit": 2}},
        {"training": {"framez": 1}},
        {"training": {"learning_rate": None}},
        {"limits": 3},
        {"campaign": "a b"},
        {"targets": ["make_z"]},
        {"retry": ["make_z"]},
        {"overrides": ["dig_a.frames=7e4", "dig_a.frames=8e4"]},
        {"overrides": ["dig_z.frames=7e4"]},
        {"overrides": ["dig_a.learning-rate=nan"]},
    ],
)
def test_the_flow_refuses_what_the_command_does_in_the_same_words_and_makes_nothing(home, wrong):
    asked = {"env": "corridor", "targets": ["make_b"], **wrong}
    with pytest.raises(InputError) as found:
        make_request(asked)
    end = asyncio.run(campaign.fn(**asked))
    assert (end.name, end.message) == ("Refused", str(found.value)) and not home.exists()
