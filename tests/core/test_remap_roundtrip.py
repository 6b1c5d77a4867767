"""Fifteen experts through prepare, train and process: each comes back as itself, wherever it sat."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corridor_runs import KNOWLEDGE, TRAINING, begin, copy_home, drive, make_spec

from flowrl_core.envs.automaton import lower_plan
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.networks.initialisation import initial_params
from flowrl_core.networks.moe import routed_apply
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.experts import build_remap, expert_slice, stack_experts
from flowrl_core.skills.model import Plan, Step
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.directory import SkillRunDirectory
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.storage.checkpoints import load_tree
from flowrl_core.storage.records.library import BundleFacts, ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get, put

NEEDED = [f"make_{item}" for item in "bcdefghijklm"]
EXPERTS = {"dig_a", "goto_bench", *NEEDED, "make_p"}
ONE_UPDATE = {"frames": 1}
LOOK = {"episodes": 32, "head_episodes": 0}


@pytest.fixture(scope="module")
def stocked(basics, tmp_path_factory):
    """A home in which all that make_p needs is learned, by the record: expert after expert with its own noise."""
    home = copy_home(basics, tmp_path_factory.mktemp("remap") / "home")
    # From m back to b, so that the order of global indices is not the order of the plan.
    for number, name in enumerate(reversed(NEEDED)):
        plant(home, name, number)
    return home


def plant(home, name, number):
    spec = make_spec("stock", "make_p", training=ONE_UPDATE, evaluation=LOOK)
    attempt = begin(home, spec, name)
    prepare(home, attempt.run, resolve(name, spec))
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(attempt.run)
        own = registry.library.expert(record.identity)
        rng = np.random.default_rng(number)
        params = initial_params(rng, own.observation_size, own.width, own.num_actions)
        contents = {i: registry.library.head(i).content for i in record.remap if i != own.global_index}
        contents[own.global_index] = put(home, params)
        results = [ExpertResult(i, contents[i], 256 if i == own.global_index else 0, record.seeds[i]) for i in contents]
        bundle = BundleFacts(0.9, 0.87, 512, 0.75)
        registry.skill_runs.commit(
            attempt.run, verdict="learned", run_frames=256, results=results, policy="most_frames", bundle=bundle
        )
        registry.attempts.end(attempt.id, "verdict")


@pytest.fixture
def own(stocked, tmp_path):
    return copy_home(stocked, tmp_path / "own")


def sealed(home, training, skill="make_p"):
    spec = make_spec("round", "make_p", training=training, evaluation=LOOK)
    run = begin(home, spec, skill).run
    config = resolve(skill, spec)
    return run, config, SkillRunDirectory(prepare(home, run, config))


def by_name(home):
    with Registry.open(home) as registry:
        return {expert.name: expert for expert in registry.library.experts()}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_seed_checkpoint_has_every_expert_at_its_local_place(own):
    _, _, directory = sealed(own, ONE_UPDATE)
    experts, remap = by_name(own), json.loads(directory.remap.read_text())["global_to_local"]
    assert experts.keys() == EXPERTS and len(remap) == 15
    seed, _ = load_tree(directory.seed)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(seed)} == {16}
    for name in EXPERTS - {"make_p"}:
        local = remap[str(experts[name].global_index)]
        assert same(expert_slice(seed, local), get(own, experts[name].head.content)), name


def test_experts_that_learn_nothing_come_back_bit_equal_through_prepare_train_and_process(own):
    """A step size below the smallest float32 trains, and moves no bit."""
    run, config, directory = sealed(own, ONE_UPDATE | {"learning_rate": 1e-46})
    seed, _ = load_tree(directory.seed)
    before = by_name(own)
    outcome = drive(own, run, config)
    assert outcome.run_frames == 256 and len(outcome.merges) == 15
    with Registry.open(own) as registry:
        remap = registry.skill_runs.get(run).remap
        for merge in outcome.merges:
            content = registry.library.version(merge.version).content
            assert same(get(own, content), expert_slice(seed, remap[merge.expert])), merge.name
            if merge.name != "make_p":
                assert merge.version == before[merge.name].head.id, "the same content is the same version"


def test_a_run_changes_the_experts_that_acted_and_no_others(own):
    run, config, _ = sealed(own, ONE_UPDATE)
    before = by_name(own)
    outcome = drive(own, run, config)
    acted = {merge.name for merge in outcome.merges if merge.routed_frames}
    assert {"dig_a"} <= acted < EXPERTS
    for merge in outcome.merges:
        if merge.name != "make_p":
            assert (merge.version != before[merge.name].head.id) == (merge.name in acted), merge.name


def test_local_places_differ_between_runs_that_share_experts(own):
    few = sealed(own, ONE_UPDATE, "make_n")[2]
    many = sealed(own, ONE_UPDATE)[2]
    new = by_name(own)["make_n"].global_index
    few, many = (json.loads(d.remap.read_text())["global_to_local"] for d in (few, many))
    assert few == {"0": 0, "1": 1, str(new): 2}
    assert len(many) == 15 and str(new) not in many


def stacked(home, names):
    """The experts' heads, stacked in the order of their global indices, and each one's local place by name."""
    experts = {name: expert for name, expert in by_name(home).items() if name in names}
    remap = build_remap([expert.global_index for expert in experts.values()])
    trees = {expert.global_index: get(home, expert.head.content) for expert in experts.values()}
    params = stack_experts([trees[index] for index in remap.global_to_local], TRAINING.max_experts)
    return params, {name: remap.global_to_local[expert.global_index] for name, expert in experts.items()}


def test_every_expert_has_the_same_action_distributions_at_another_local_place(stocked, network):
    everything, places = stacked(stocked, EXPERTS - {"make_p"})
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 31)).astype(np.float32))
    apply = jax.jit(lambda params, expert: routed_apply(network.apply, params, x, expert, block=32))
    for name in sorted(places):
        alone, place = stacked(stocked, {name, "goto_bench"})
        many = apply(everything, jnp.full(32, places[name]))
        few = apply(alone, jnp.full(32, place[name]))
        for a, b in zip(many, few, strict=True):
            np.testing.assert_array_equal(a, b)
    moved = [name for name in places if stacked(stocked, {name, "goto_bench"})[1][name] != places[name]]
    assert len(moved) >= 12


def test_a_plan_is_played_the_same_by_experts_at_other_local_places(stocked, learner):
    plan = Plan("make_b", (Step("dig_a", 1), Step("goto_bench", 1), Step("make_b", 1)))
    seen = []
    for names in (EXPERTS - {"make_p"}, set(plan.skills)):
        params, places = stacked(stocked, names)
        arrays = lower_plan(plan, KNOWLEDGE.skills, places, CORRIDOR, episode_limit=40)
        pool = learner.fill(jax_stream(0))
        _, trajectory = learner.play(params, learner.begin(pool), pool, arrays, jax_stream(1))
        seen.append((places, jax.tree.map(np.asarray, trajectory)))
    (many, first), (few, second) = seen
    assert many["make_b"] != few["make_b"]
    np.testing.assert_array_equal([many[plan.steps[s].skill] for s in first.step.ravel()], first.expert.ravel())
    for field in ("inputs", "action", "log_prob", "value", "reward", "step", "is_over"):
        jax.tree.map(np.testing.assert_array_equal, getattr(first, field), getattr(second, field))
    assert (first.step > 0).any()


def test_the_module_says_what_the_plan_and_the_remap_say(own):
    _, _, directory = sealed(own, ONE_UPDATE)
    report = (
        "import json, runpy, sys; m = runpy.run_path(sys.argv[1]); "
        "print(json.dumps({k: v for k, v in m.items() if k.isupper()}))"
    )
    isolated = [sys.executable, "-I", "-c", report, str(directory.module)]
    done = subprocess.run(isolated, capture_output=True, text=True, check=True, cwd="/")
    module, plan = json.loads(done.stdout), json.loads(directory.plan.read_text())
    remap = json.loads(directory.remap.read_text())
    assert module["GLOBAL_TO_LOCAL"] == remap["global_to_local"]
    assert module["LOCAL_TO_GLOBAL"] == remap["local_to_global"]
    assert len(module["GLOBAL_TO_LOCAL"]) == 15
    assert module["TARGET"] == plan["target"] == "make_p"
    assert [{"skill": s["skill"], "n": s["n"]} for s in module["STEPS"]] == plan["steps"]
    for step in module["STEPS"]:
        skill = plan["skills"][step["skill"]]
        assert step["expert"] == remap["global_to_local"][str(plan["experts"][step["skill"]])]
        assert {k: step[k] for k in ("done", "reward", "target")} == {k: skill[k] for k in ("done", "reward", "target")}
