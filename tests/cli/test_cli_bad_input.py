"""Input that cannot be used: one clear line each, exit code 2, and nothing written or started."""

from __future__ import annotations

import json

import pytest

from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.specs.campaign import parse_campaign
from flowrl_core.storage.layout import Home
from flowrl_core.storage.registry import Registry

SKILL = """
[skills.{name}]
description = "{name}"
done = "since.{item} >= n"
reward = "gained.{item}"
gain = {{ "inv.{item}" = "n" }}
{more}
"""


def knowledge(*skills: tuple[str, str, str], head: str = 'env = "corridor"') -> str:
    return head + "".join(SKILL.format(name=name, item=item, more=more) for name, item, more in skills)


CYCLE = knowledge(
    ("one", "a", 'requirements = { "inv.b" = 1 }'),
    ("two", "b", 'requirements = { "inv.c" = 1 }'),
    ("three", "c", 'requirements = { "inv.a" = 1 }'),
)
NOBODY = knowledge(("one", "a", 'requirements = { "inv.b" = 1 }'))
CAPACITY = knowledge(("one", "a", ""), ("two", "b", 'consumption = { "inv.a" = "2*n" }\nlearn_count = 5'))
# The place costs one of what is needed in full beside it, and is lost on the way back for more.
NO_PLAN = (
    knowledge(("one", "a", ""), ("two", "b", 'requirements = { "inv.a" = 9, "near.bench" = 1 }'))
    + """
[skills.bench]
description = "bench"
done = "near.bench"
reward = "1 if near.bench else 0"
gain = { "near.bench" = 1 }
consumption = { "inv.a" = 1 }
ephemeral = true
"""
)
UNKNOWN_KEY = knowledge(("one", "a", "colour = 3"))
ALIKE = knowledge(("one", "a", ""), ("One", "b", ""))
CORRIDOR = ("--env", "corridor", "--target", "make_b")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ("target",)),
        (("--target", "make_stone_pickax"), ("make_stone_pickaxe",)),
        (("--target", "make_b", "--env", "coridor"), ("env", "corridor")),
        ((*CORRIDOR, "--campaign", "../up"), ("campaign",)),
        ((*CORRIDOR, "--campaign", "a/b"), ("campaign",)),
        ((*CORRIDOR, "--campaign", ""), ("campaign",)),
        ((*CORRIDOR, "--knowledge", "nowhere.toml"), ("nowhere.toml",)),
        ((*CORRIDOR, "--knowledge", "craftax-classic"), ("env", "craftax-classic")),
        ((*CORRIDOR, "--override", "make_b.frames"), ("--override", "make_b.frames")),
        ((*CORRIDOR, "--override", "make_bb.frames=10"), ("make_b",)),
        ((*CORRIDOR, "--override", "make_b.framez=10"), ("framez", "frames")),
        ((*CORRIDOR, "--override", "make_b.frames=-10"), ("frames",)),
        ((*CORRIDOR, "--override", "make_b.FRAMES=7e4"), ("--override make_b.FRAMES: ", "Did you mean frames?")),
        ((*CORRIDOR, "--override", "make_b.training.frames=7e4"), ("make_b.training.frames: ", "mean frames?")),
        ((*CORRIDOR, "--override", "make_o.threshold=2"), ("threshold",)),
        ((*CORRIDOR, "--retry", "make_bb"), ("retry", "make_b")),
        ((*CORRIDOR, "--retry", "Make-B"), ("--retry: there is no skill 'Make-B'. Did you mean make_b?",)),
        (("--env", "Corridor", "--target", "make_b"), ("--env", "Did you mean corridor?")),
        ((*CORRIDOR, "--target", "make_b,dig_a"), ("--target: 'make_b,dig_a' is a list. Name each target separately",)),
        ((*CORRIDOR, "--training.frames", "0"), ("training.frames",)),
        ((*CORRIDOR, "--evaluation.threshold", "1"), ("evaluation.threshold",)),
        ((*CORRIDOR, "--config", "nowhere.toml"), ("nowhere.toml",)),
        ((*CORRIDOR, "--override", "make_b.frames=2.5"), ("--override make_b.frames: must be a whole number",)),
        ((*CORRIDOR, "--override", "make_b.learning-rate=nan"), ("--override make_b.learning-rate: ", "got NaN")),
        (
            (*CORRIDOR, "--override", "dig_a.frames=7e4", "--override", "dig_a.frames=8e4"),
            ("--override dig_a.frames: is given twice, as 7e4 and as 8e4",),
        ),
        (
            (*CORRIDOR, "--override", "dig_a.min_frames=7e4", "--override", "dig_a.min-frames=7e4"),
            ("--override dig_a.min-frames: is given twice",),
        ),
        ((*CORRIDOR, "--training.frames", "200.000"), ("--training.frames: must be a whole number", "200000?")),
        ((*CORRIDOR, "--training.num-envs", "x"), ("--training.num-envs: must be a whole number (got 'x')",)),
        ((*CORRIDOR, "--training.frames", "7e4", "--training.frames", "8e4"), ("frames: is given twice. Remove",)),
        ((*CORRIDOR, "--campaign", "a", "--campaign", "b"), ("--campaign: is given twice",)),
        ((*CORRIDOR, "--campaign", "a b"), ("--campaign: must begin with", "at most 64 letters, digits, - and _")),
        ((*CORRIDOR, "--training.framez", "7"), ("--training.framez", "--training.frames")),
        ((*CORRIDOR, "stray"), ("unexpected argument 'stray'",)),
        ((*CORRIDOR, "--keep=2"), ("--keep: is a switch (got '2'). Write --keep alone",)),
        ((*CORRIDOR, "--training", '{"frames":'), ("--training: is not JSON", "Write each field as an option")),
        ((*CORRIDOR, "--training.frames", "x"), ("Write, for example, --training.frames 4000000",)),
        ((*CORRIDOR, "--override", "make_b.action-masks=ja"), ("example, --override make_b.action-masks=true",)),
        ((*CORRIDOR, "--frontier.extra", "x"), ("""example, --frontier.extra 'reasoning_effort="low"'""",)),
        (("--env", "corridor", "--target", ""), ("--target: there is no skill ''",)),
        ((*CORRIDOR, "--target"), ("--target: needs a value. Write --target VALUE",)),
        (
            (*CORRIDOR, "--evaluation.episodes", "5", "--training.num-envs", "5"),
            ("--evaluation.episodes: 5 episodes cannot prove --evaluation.threshold (0.75)", "at least 20 episodes"),
        ),
        ((*CORRIDOR, "--evaluation.episodes", "5"), ("cannot prove --evaluation.threshold", "at least 64 episodes")),
        (
            (*CORRIDOR, "--override", "dig_a.threshold=0.999"),
            ("--evaluation.episodes: 512 episodes cannot prove --override dig_a.threshold (0.999)",),
        ),
        (
            (*CORRIDOR, "--training.frames", "5e3"),
            ("--training.frames: 5000 is below --evaluation.min-frames (16384)",),
        ),
        ((*CORRIDOR, "--override", "make_b.frames=5"), ("--override make_b.frames: 5 is less than one update",)),
        (
            (*CORRIDOR, "--training.episode-limit", "2"),
            ("--training.episode-limit: 2 is too short: the plan of make_b takes at least 3 steps", "at least 3"),
        ),
        (
            (*CORRIDOR, "--frontier.kind", "hybrid", "--frontier.model", "m@http://localhost:1/v1",
             "--frontier.max-tokens", "100"),
            ("--frontier.max-tokens: 100 is below", "--frontier.max-output-tokens (4096)"),
        ),
        (
            (*CORRIDOR, "--frontier.model", "openai:NAME"),
            ("--frontier.kind: is knowledge", "Add --frontier.kind model, or hybrid"),
        ),
        ((*CORRIDOR, "--frontier.kind", "hybrid"), ("--frontier.model: is empty, and --frontier.kind is hybrid",)),
        (
            (*CORRIDOR, "--frontier.kind", "hybrid", "--frontier.model", "m@http://localhost:1/v1",
             "--frontier.max-cost", "2"),
            ("--frontier.max-cost: the price of", "Give it: --frontier.prices m@http://localhost:1/v1=IN/OUT (US"),
        ),
    ],
)  # fmt: skip
def test_a_campaign_that_cannot_be_is_refused_and_leaves_nothing(home, flowrl_here, refused, arguments, said):
    refused(flowrl_here("campaign", *arguments), *said)
    assert not list(home.parent.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tergets = ['make_b']", ("tergets",)),
        ("targets = ['make_b']\n[training]\nframez = 3", ("training.framez",)),
        ("targets = ['make_b']\n[training]\nframes = 'many'", ("training.frames",)),
        ("targets = ['make_b']\n[evaluation]\nthreshold = 0.0", ("evaluation.threshold",)),
        ("targets = make_b", ("TOML", "line 1", "'targets = make_b'", 'texts in straight quotes ("...")')),
        ("targets = 'make_b'", ("targets: must be a list (got 'make_b')", 'for example, targets = ["make_b"]')),
        ("targets = [['make_b']]", ("c.toml: targets, entry 1: must be a text",)),
        ("overrides.make_b.frames = 1e5", ('Write, for example, overrides = ["collect_wood.frames=100000"]',)),
        ("[frontier]\nextra = [1]", ("c.toml: frontier.extra, entry 1: must be a text",)),
        ("training = 3", ("c.toml: training: must be a table", "for example, frames = 4000000 under [training]")),
        ("[training]\nframes = 2026-01-01", ("(got the date 2026-01-01)", "frames = 4000000 under [training]")),
        ("frames = 7e4", ("c.toml: frames: there is no such parameter", "Did you mean training.frames?")),
        ("targets = []", ("c.toml: targets: no target is named", 'Add targets = ["SKILL"]')),
        ("targets = ['make_b']\n[training]\nnum-envs = 3\nnum_envs = 4", ("training", "twice")),
        ("targets = ['make_b']\n[training]\nlearning-rate = nan", ("c.toml: training.learning_rate", "got NaN")),
        (
            "targets = ['make_b']\n[training]\nframes = 5e3",
            ("c.toml: training.frames: 5000", "--evaluation.min-frames"),
        ),
        ("targets = ['make_b']\noverrides = ['make_b.frames=x']", ("c.toml: overrides.make_b.frames: must be",)),
        ("targets = ['no_b']", ("c.toml: targets: there is no skill 'no_b'",)),
    ],
)
def test_a_wrong_config_file_is_named_with_table_and_key(home, flowrl_here, refused, text, said):
    (home.parent / "c.toml").write_text(text)
    refused(flowrl_here("campaign", "--env", "corridor", "--config", "c.toml"), "c.toml", *said)
    assert not home.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CYCLE, ("cyclic", "one", "two", "three")),
        (NOBODY, ("one", "inv.b")),
        (CAPACITY, ("two", "9")),
        (NO_PLAN, ("two", "cannot")),
        (UNKNOWN_KEY, ("one", "colour")),
        (ALIKE, ("one", "One")),
        (knowledge(("one", "a", ""), head='env = "coridor"'), ("corridor",)),
        (knowledge(("one", "a", "")).replace("since.a >= n", "1 >= 1"), ("one", "always_true")),
    ],
)
def test_wrong_knowledge_is_refused_by_every_command_that_reads_it(home, flowrl_here, refused, text, said):
    (home.parent / "k.toml").write_text(text)
    refused(flowrl_here("knowledge", "check", "k.toml"), *said)
    target = "two" if "skills.two" in text else "one"
    refused(flowrl_here("plan", target, "--knowledge", "k.toml"), *said)
    refused(flowrl_here("campaign", "--env", "corridor", "--knowledge", "k.toml", "--target", target), *said)
    assert not home.exists()


def test_a_plan_that_cannot_be_is_json_that_says_so(home, flowrl_here):
    (home.parent / "k.toml").write_text(NO_PLAN)
    done = flowrl_here("plan", "two", "--knowledge", "k.toml", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout) == {"target": "two", "steps": [], "valid": False}
    assert "two" in done.stderr


def test_a_home_that_is_a_file_is_refused(home, flowrl_here, refused):
    home.write_text("mine")
    refused(flowrl_here("campaign", *CORRIDOR), "FLOWRL_HOME", "file")
    refused(flowrl_here("status"), "FLOWRL_HOME", "file")
    assert home.read_text() == "mine"


def test_a_wrong_database_url_is_refused(home, flowrl_here, refused, monkeypatch):
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", "postgresql+nodriver://localhost/x")
    refused(flowrl_here("campaign", *CORRIDOR), "FLOWRL_REGISTRY_URL", "nodriver")
    assert not home.exists()


def test_a_server_url_that_is_none_is_told_and_nothing_is_written(home, flowrl_here, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "nonsense")
    done = flowrl_here("campaign", *CORRIDOR)
    assert done.returncode == 1
    assert "PREFECT_API_URL" in done.stderr
    assert not home.exists()


@pytest.fixture
def started(home) -> Home:
    """A home with a campaign, and an expert of width 64."""
    found = Home(home)
    base = load_knowledge("corridor")
    with Registry.open(found) as registry:
        registry.campaigns.record(parse_campaign(env="corridor", targets=["dig_a"]), base.skills)
        identity = registry.skills.get("default", "dig_a").identity
        registry.library.allocate(identity, observation_size=30, num_actions=18, width=64)
    return found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--target", "collect_wood"),
            (
                "--target: there is no skill 'collect_wood'",
                "is in corridor: for another environment, use another --cam",
            ),
        ),
        (
            ("--env", "craftax-classic"),
            ("--env: campaign 'default' was started with 'corridor', not 'craftax-classic'",),
        ),
        (("--override", "dig_a.frames=7e4"), ("was started without it", "if dig_a has failed, add --retry dig_a")),
        ((*CORRIDOR, "--training.frames", "70000"), ("--training.frames", "4000000", "70000")),
        ((*CORRIDOR, "--training.width", "32", "--campaign", "other"), ("training.width", "64", "32")),
    ],
)
def test_what_disagrees_with_the_registry_changes_nothing(started, flowrl_here, refused, arguments, said):
    with Registry.open(started) as registry:
        before = registry.campaigns.all()
    refused(flowrl_here("campaign", *arguments), *said)
    with Registry.open(started) as registry:
        assert registry.campaigns.all() == before
    assert not started.embedded.exists()


def test_bad_input_is_refused_by_the_real_command(home, flowrl, refused):
    refused(flowrl("campaign", "--target", "collect_wod"), "collect_wood")
    assert not list(home.parent.iterdir())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://ann:geheim@there/x", "no database driver 'mysql'"),
        ("postgresql+psycopg://ann:geheim@127.0.0.1:1/x", "connection"),
        ("postgresql+psycopg://ann:gehe@geheim@127.0.0.1:1/x", "has an @ in its password. Write it as %40"),
        ("sqlite:///", "does not name a file"),
        ("sqlite:////none/such/x.db", "is in /none/such, which is not a directory"),
    ],
)
def test_nothing_is_started_for_a_registry_that_cannot_be_asked(home, flowrl_here, refused, monkeypatch, url, said):
    monkeypatch.setenv("FLOWRL_REGISTRY_URL", url)
    for command in (("up",), ("campaign", *CORRIDOR)):
        done = flowrl_here(*command)
        refused(done, "FLOWRL_REGISTRY_URL", said)
        assert "geheim" not in done.stderr and not (home / "prefect").exists()
