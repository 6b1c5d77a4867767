"""Reflections: where a run's episodes ended, and what the parts of its reward came to."""

import dataclasses
import time

import pytest
from corridor_runs import KNOWLEDGE, begin, make_spec

from flowrl_core.compiled.cache import compilations
from flowrl_core.envs.automaton import lower_plan
from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.errors import ConflictError, StorageError
from flowrl_core.learning.reward_diagnostics import play_term
from flowrl_core.programs.addends import addends, lower_term
from flowrl_core.programs.language import check_reward
from flowrl_core.programs.model import Program
from flowrl_core.randomness import jax_stream
from flowrl_core.skills.model import Plan, Step
from flowrl_core.skills.reflection import Reflection, Term
from flowrl_core.specs.campaign import CampaignSpec
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill.evaluate import evaluate, verdict
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.process import process
from flowrl_core.stages.skill.reflect import reflect
from flowrl_core.stages.skill.train import train
from flowrl_core.storage.registry import Registry
from flowrl_core.types import FailedEnds

# Gains, a cost of time, and a term that nothing in these episodes moves.
REWARD = "gained.b - 0.25 * gained.p - (0.01 + 0.01)"


def judged(home, spec, skill, reward):
    """A run that the looks have given a verdict, not processed yet."""
    changed = dataclasses.replace(
        KNOWLEDGE.skills[skill], program=Program(KNOWLEDGE.skills[skill].program.done, reward)
    )
    attempt = begin(home, spec, skill, skills=KNOWLEDGE.skills | {skill: changed})
    prepare(home, attempt.run, resolve(skill, spec))
    while verdict(home, attempt.run) is None:
        train(home, attempt.run, should_stop=lambda: False, on_update=lambda report: None)
        evaluate(home, attempt.run)
    return attempt.run


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ("gained.b", ["gained.b"]),
        (REWARD, ["gained.b", "-(0.25 * gained.p)", "-0.01", "-0.01"]),
        ("gained.a - (gained.b - (gained.c + 0.5))", ["gained.a", "-gained.b", "gained.c", "0.5"]),
        ("2 * (gained.a + gained.b)", ["2 * (gained.a + gained.b)"]),
        ("min(gained.a + gained.b, 1)\n + -0.5", ["min(gained.a + gained.b, 1)", "-0.5"]),
    ],
)
def test_the_addends_of_a_reward_are_programs_that_add_up_to_it(reward, expected):
    found = addends(check_reward(reward, CORRIDOR).text)
    assert list(found) == expected
    assert all(lower_term(text, CORRIDOR) is not None for text in found)


def test_a_term_that_cannot_be_lowered_alone_is_none():
    assert lower_term("1e9 * gained.a", CORRIDOR) is None


def test_a_reflection_is_read_as_it_was_written():
    term = Term("gained.b", 0.5, 1.5)
    one = Reflection(512, 32, 3, 30, 7.5, (FailedEnds(0, 1), FailedEnds(2, 3, 1)), term, (term, term), {"inv.b": 1.0})
    assert Reflection.from_dict(one.as_dict()) == one and one.success == 3 / 32


def test_a_learned_run_tells_what_its_reward_came_to(home, learner):
    run = judged(home, make_spec("reflects", "make_b"), "make_b", REWARD)
    began = time.perf_counter()
    found = reflect(home, run)
    print(f"\nreflected in {time.perf_counter() - began:.2f} s")
    assert (found.episodes, found.success) == (32, found.successes / 32) and found.success > 0.8
    assert [term.text for term in found.terms] == ["gained.b", "-(0.25 * gained.p)", "-0.01", "-0.01"]
    assert found.terms[1] == Term("-(0.25 * gained.p)", 0.0, 0.0), "nothing ever made a p"
    gains, _, _, time_cost = found.terms
    assert 0 < gains.fired <= 1 and gains.mean == pytest.approx(found.successes / found.tries, abs=0.1)
    assert time_cost.fired == 1 and time_cost.mean < 0
    assert found.reward.mean == pytest.approx(sum(term.mean for term in found.terms), abs=1e-5)
    assert found.changes == {"inv.b": 1.0, "inv.a": -1.0}
    assert sum(sum(pair) for pair in found.ends) == 32 - found.successes and len(found.ends) == 3
    with Registry.open(home) as registry:
        assert registry.skill_runs.get(run).reflection == found
        look = registry.skill_runs.looks(run)[-1]
        assert sum(map(sum, look.ends)) == look.episodes - look.successes and len(look.ends) == 3


def test_again_is_the_same_and_what_is_recorded_stands(home):
    spec = make_spec("again", "make_b", training={"frames": 512}, evaluation={"episodes": 32, "threshold": 0.99})
    run = judged(home, spec, "make_b", "gained.b")
    with Registry.open(home) as registry:
        zombie, owner = registry.runs.claim(run), registry.runs.claim(run)
    with pytest.raises(ConflictError):
        reflect(home, run, epoch=zombie)
    found = reflect(home, run, epoch=owner)
    assert reflect(home, run, epoch=owner) == found
    with Registry.open(home) as registry:
        assert registry.skill_runs.record_reflection(run, dataclasses.replace(found, successes=0)) == found
        process(home, run, epoch=owner)
        assert reflect(home, run) == found == registry.skill_runs.get(run).reflection


def test_a_plan_whose_first_step_fails_shows_that_its_episodes_ended_in_it(home):
    limits = {"frames": 512, "episode_limit": 3}
    spec = make_spec("short", "make_b", training=limits, evaluation={"episodes": 32, "threshold": 0.99})
    found = reflect(home, judged(home, spec, "make_b", "gained.b - 0.01"))
    assert found.successes == 0 and found.median_length is None and found.changes == {}
    assert found.ends[0].timed_out > 16 and not any(ends.died for ends in found.ends), "three steps bring nobody far"
    assert found.tries <= 32 - found.ends[0].timed_out


def test_a_run_without_a_checkpoint_has_none_and_one_without_a_verdict_is_refused(home):
    spec = make_spec("early", "make_b", training={"frames": 1_024})
    run = begin(home, spec, "make_b").run
    assert reflect(home, run) is None, "never prepared"
    prepare(home, run, resolve("make_b", spec))
    assert reflect(home, run) is None, "never trained"
    train(home, run, should_stop=lambda: True, on_update=lambda report: None)
    assert reflect(home, run) is None, "stopped before the first update"
    updates = []
    train(home, run, should_stop=lambda: bool(updates), on_update=updates.append)
    with pytest.raises(StorageError, match="has no verdict yet"):
        reflect(home, run)


def test_only_campaigns_that_ask_a_model_reflect():
    spec = CampaignSpec(env="corridor", targets=["make_b"])
    assert not resolve("make_b", spec).reflect
    hybrid = spec.model_copy(update={"frontier": spec.frontier.model_copy(update={"kind": "hybrid"})})
    assert resolve("make_b", hybrid).reflect


def test_the_reward_of_a_plan_changes_nothing_that_is_played(learner, fresh_params):
    pool, num_compiled = learner.fill(jax_stream(1)), compilations()
    plan = lower_plan(
        Plan("dig_a", (Step("goto_bench", 1), Step("dig_a", 1))),
        KNOWLEDGE.skills, {"dig_a": 0, "goto_bench": 1}, CORRIDOR, episode_limit=40,
    )  # fmt: skip
    terms = [lower_term(text, CORRIDOR) for text in ("gained.a", "gained.b - 0.5")]
    (one, first), (other, second) = (
        play_term(learner, fresh_params, plan, term, pool, 2, jax_stream(2)) for term in terms
    )
    assert repr(one) == repr(other) and first.tries == second.tries > 0
    assert first.mean != second.mean and compilations() == num_compiled
