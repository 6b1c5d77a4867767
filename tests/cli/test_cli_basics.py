"""The command itself: quick to start, one clear line for an error, nothing but JSON where JSON is asked for."""

from __future__ import annotations

import importlib.metadata
import json
import resource
import subprocess
import sys

import pytest

HEAVY = ("jax", "prefect", "sqlalchemy", "scipy", "numpy", "flax", "orbax", "craftax", "pydantic", "httpx")


def test_help_imports_nothing_heavy():
    code = f"""
import sys
from flowrl_cli.app import run
assert run(["--help"]) == 0
print(sorted(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"
    for name in (
        "campaign",
        "up",
        "down",
        "status",
        "logs",
        "plan",
        "knowledge",
        "experts",
        "programs",
        "env",
        "doctor",
    ):
        assert name in done.stdout


def test_help_takes_less_than_half_a_second(flowrl):
    def spent() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert flowrl("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # CPU time, and the best of three: the machine may be busy with something else.
    assert min(spent() for _ in range(3)) < 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["campain"], "campaign"),
        (["env", "fluentz"], "fluents"),
        (["env", "fluents", "--envv", "corridor"], "--env"),
        (["env", "fluents", "surplus"], "surplus"),
        (["env", "fluents", "--env", "corridoor"], "corridor"),
        (["campaign", "--training.frames", "-5"], "training.frames"),
        (["campaign", "--training.frames", "many"], "frames"),
        (["campaign", "--training.fames", "5"], "--training.frames"),
        (["campaign", "--evaluation.threshold", "1.5"], "evaluation.threshold"),
        (["campaign", "--limits.merge", "largest"], "most_frames"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(home, flowrl_here, refused, arguments, said):
    refused(flowrl_here(*arguments), said)
    assert not list(home.parent.iterdir())


def test_debug_shows_the_traceback(flowrl):
    done = flowrl("env", "fluents", "--env", "nowhere", FLOWRL_DEBUG="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_env_fluents_json_lists_every_fluent(flowrl_here):
    found = json.loads(flowrl_here("env", "fluents", "--env", "corridor", "--json").stdout)
    assert found["env"] == "corridor"
    assert {"name": "inv.a", "kind": "count", "low": 0, "high": 9} in found["fluents"]
    assert "near.bench" in flowrl_here("env", "fluents", "--env", "corridor").stdout
    assert {"gained.X", "n"} <= found["derived"].keys() and not found["hidden"]


def test_env_fluents_says_what_only_rewards_may_read(flowrl_here):
    found = json.loads(flowrl_here("env", "fluents", "--json").stdout)
    assert found["hidden"] == ["dealt.zombie", "dealt.cow", "dealt.skeleton"]
    table = flowrl_here("env", "fluents").stdout.splitlines()
    assert [line.split()[0] for line in table if "rewards only" in line] == found["hidden"]


def test_a_plan_as_json_says_what_each_step_is(flowrl_here):
    iron = json.loads(flowrl_here("plan", "make_iron_pickaxe", "--json").stdout)
    assert "guards" not in iron and iron["begins_as"] is None
    assert iron["steps"][-2]["keeps"].keys() >= {"near.crafting_table", "near.furnace"}
    plant = json.loads(flowrl_here("plan", "eat_plant", "--json").stdout)
    assert plant["guards"] == ["defeat_zombie", "collect_drink", "eat_cow", "wake_up"]
    diamond = json.loads(flowrl_here("plan", "collect_diamond", "--json").stdout)
    assert diamond["begins_as"] == "collect_iron"
    said = {name: flowrl_here("plan", name).stdout for name in ("eat_plant", "collect_diamond")}
    assert "Guarded by collect_drink, once learned: from drink <= 2" in said["eat_plant"]
    assert "Begins as collect_iron, once" in said["collect_diamond"]
    steps = json.loads(flowrl_here("plan", "make_b", "--knowledge", "corridor", "--json").stdout)["steps"]
    table = flowrl_here("plan", "make_b", "--knowledge", "corridor").stdout
    assert len(steps) > 1 and all(f"{step['skill']} " in table and step["description"] in table for step in steps)


def test_an_expression_that_begins_with_a_minus_is_read_as_one(flowrl):
    done = flowrl("programs", "check", "--kind", "reward", "-gained.wood + 1")
    assert done.returncode == 0
    assert "[-8, 10]" in done.stdout


@pytest.mark.parametrize(
    ("kind", "text", "code"),
    [
        ("done", "inv.wood ** 2 > 1", "[not_allowed]"),
        ("done", "inv.wod >= n", "[unknown_name]"),
        ("done", "1/0 > 1", "[division]"),
        ("reward", "1", "[constant]"),
        ("reward", "\u0131nv.wood", "[not_ascii]"),
    ],
)
def test_a_refused_expression_names_code_and_remedy(flowrl_here, refused, kind, text, code):
    refused(flowrl_here("programs", "check", "--kind", kind, text), code)


def test_doctor_tells_an_unsupported_version_and_the_command_that_mends_it(home, flowrl_here, monkeypatch):
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.0.0" if name == "prefect" else installed(name))
    monkeypatch.setenv("JAX_PLATFORMS", "nowhere")
    done = flowrl_here("doctor")
    assert done.returncode == 1
    assert "2.0.0, supported" in done.stdout
    assert 'pip install "prefect' in done.stdout
    assert "unset JAX_PLATFORMS" in done.stdout
    assert not home.exists()
