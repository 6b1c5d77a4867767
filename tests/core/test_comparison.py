"""The merge policy `evaluated`: a head moves only to a version that is measured to be no worse at its own skill."""

import numpy as np
import pytest
from corridor_runs import begin, copy_home, learn, make_spec

from flowrl_core.compiled.cache import compilations
from flowrl_core.errors import ConflictError
from flowrl_core.specs.overrides import resolve
from flowrl_core.stages.skill import process as process_stage
from flowrl_core.stages.skill.assessment import assess
from flowrl_core.stages.skill.comparison import compare
from flowrl_core.stages.skill.context import open_run
from flowrl_core.stages.skill.evaluate import evaluate, verdict
from flowrl_core.stages.skill.prepare import prepare
from flowrl_core.stages.skill.process import process
from flowrl_core.stages.skill.train import train
from flowrl_core.statistics import wilson_upper
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.library import BundleFacts, Compared, ExpertResult
from flowrl_core.storage.registry import Registry
from flowrl_core.storage.versions import get, put

pytestmark = pytest.mark.long

# In the corridor even chance reaches a mine within 40 steps; within 12 it takes skill.
CAREFUL = make_spec("careful", "make_b", training={"episode_limit": 12})
SHARED = ("dig_a", "goto_bench")


def careless(policy):
    """A campaign whose runs are content with little, and whose entropy bonus drives every expert towards chance."""
    return make_spec(
        "careless",
        "make_b",
        training={"entropy_weight": 0.5, "final_entropy_share": 1.0, "final_learning_rate_share": 1.0},
        evaluation={"threshold": 0.3, "target": 0.4, "min_frames": 512, "min_episodes": 16},
        limits={"merge": policy},
    )


@pytest.fixture(scope="module")
def careful(basics, tmp_path_factory):
    """A home in which the shared skills were learned well."""
    home = Home(tmp_path_factory.mktemp("careful"))
    home.cache.symlink_to(basics.cache)
    for skill in SHARED:
        assert learn(home, CAREFUL, skill)[1].verdict == "learned"
    return home


@pytest.fixture(scope="module")
def merged(careful, tmp_path_factory):
    """A home for each policy, in which make_b was then learned carelessly: the home and the merges by skill."""
    found = {}
    for policy in ("most_frames", "evaluated"):
        home = copy_home(careful, tmp_path_factory.mktemp(policy) / "home")
        before = compilations()
        run, outcome = learn(home, careless(policy), "make_b")
        assert outcome.verdict == "learned" and compilations() == before
        found[policy] = home, {merge.name: merge for merge in outcome.merges}, run
    return found


@pytest.mark.parametrize("skill", SHARED)
def test_most_frames_makes_a_shared_skill_worse_and_evaluated_does_not(merged, skill):
    now = {}
    for policy, (home, _, _) in merged.items():
        proved = assess(home, "careful", skill, of="bundle", episodes=512)
        assert proved.is_still_learned and proved.success > 0.9
        now[policy] = proved, assess(home, "careful", skill, of="heads", episodes=512)
    proved, worse = now["most_frames"]
    assert wilson_upper(worse.successes, worse.episodes, 0.001) < proved.lower_bound - 0.1
    assert not worse.is_still_learned
    proved, kept = now["evaluated"]
    assert kept.is_still_learned and kept.lower_bound > 0.9


def test_both_policies_saw_the_same_training_and_evaluated_says_what_it_measured(merged):
    (_, moved, _), (home, kept, run) = merged["most_frames"], merged["evaluated"]
    assert {name: (merge.version, merge.frames) for name, merge in moved.items()} == {
        name: (merge.version, merge.frames) for name, merge in kept.items()
    }
    assert {name: merge.action for name, merge in moved.items()} == dict.fromkeys(SHARED, "updated") | {"make_b": "new"}
    assert {name: merge.action for name, merge in kept.items()} == dict.fromkeys(SHARED, "kept") | {"make_b": "new"}
    assert all(merge.measured is None for merge in moved.values()) and kept["make_b"].measured is None
    for name in SHARED:
        measured = kept[name].measured
        assert (measured.head, measured.episodes) == (kept[name].from_version, 512)
        assert measured.version_successes < measured.head_successes - 50
    with Registry.open(home) as registry:
        assert {merge.name: merge for merge in registry.skill_runs.merges(run)} == kept


def test_what_the_run_proved_is_a_bundle_whatever_became_of_the_heads(merged):
    home, kept, _ = merged["evaluated"]
    proved = assess(home, "careless", "make_b", of="bundle", episodes=512)
    assert proved.versions == {merge.expert: merge.version for merge in kept.values()}
    assert proved.success > 0.3


# A head that is moved between the comparison and the commit


@pytest.fixture
def judged(careful, tmp_path):
    """A home with a run of make_b that is trained and judged but not committed."""
    home = copy_home(careful, tmp_path / "home")
    spec = careless("evaluated")
    run = begin(home, spec, "make_b").run
    prepare(home, run, resolve("make_b", spec))
    while verdict(home, run) is None:
        train(home, run, should_stop=lambda: False, on_update=lambda report: None)
        evaluate(home, run)
    return home, run


def move_head(home, skill):
    """A sibling's run of this skill is learned by the record; it leaves the others nearly as they were."""
    spec = make_spec("sibling", skill, evaluation={"head_episodes": 0})
    run = begin(home, spec, skill).run
    prepare(home, run, resolve(skill, spec))
    with Registry.open(home) as registry:
        record = registry.skill_runs.get(run)
        dig = min(record.remap)
        heads = {index: registry.library.head(index) or registry.library.head(dig) for index in record.remap}
        contents = {index: put(home, nudged(get(home, head.content), index)) for index, head in heads.items()}
        frames = registry.library.head(dig).frames + 10**6
        registry.skill_runs.commit(
            run,
            verdict="learned",
            run_frames=frames,
            results=[ExpertResult(i, content, frames, record.seeds[i]) for i, content in contents.items()],
            policy="most_frames",
            bundle=BundleFacts(0.9, 0.8, 512, 0.75),
        )
        return registry.library.head(dig).id


def nudged(tree, index):
    if isinstance(tree, dict):
        return {name: nudged(leaf, index) for name, leaf in tree.items()}
    return tree * np.float32(1 + 1e-3 * (index + 1))


def while_others_move_heads(monkeypatch, home, skills):
    """From now on a head is moved after each comparison, as long as there are skills; the answers of `compare`."""
    compare, waiting, answers = process_stage.compare, list(skills), []

    def compare_then_move(*args):
        answers.append(compare(*args))
        if waiting:
            move_head(home, waiting.pop(0))
        return answers[-1]

    monkeypatch.setattr(process_stage, "compare", compare_then_move)
    return answers


def test_a_head_that_moved_while_it_was_measured_is_measured_again(judged, monkeypatch):
    home, run = judged
    answers = while_others_move_heads(monkeypatch, home, ["make_c"])
    merges = {merge.name: merge for merge in process(home, run).merges}
    first, second = answers
    with Registry.open(home) as registry:
        dig, goto = (next(e for e in registry.library.experts() if e.name == name) for name in SHARED)
    for expert in (dig, goto):
        index = expert.global_index
        assert first.measured[index].head != second.measured[index].head == second.heads[index]
        assert merges[expert.name].from_version == merges[expert.name].measured.head == second.heads[index]
        assert merges[expert.name].action == "kept"


def test_a_head_that_moves_again_and_again_ends_in_a_conflict_and_changes_nothing(judged, monkeypatch):
    home, run = judged
    answers = while_others_move_heads(monkeypatch, home, ["make_c", "make_d", "make_e", "make_f", "make_g"])
    with pytest.raises(ConflictError, match="was moved while it was measured"):
        process(home, run)
    assert len(answers) == 4
    with Registry.open(home) as registry:
        assert registry.skill_runs.get(run).verdict is None and registry.skill_runs.merges(run) == []
    monkeypatch.undo()
    assert process(home, run).verdict == "learned", "left alone, it ends"


def test_what_did_not_change_and_what_has_no_head_is_not_measured(judged):
    home, run = judged
    with Registry.open(home) as registry:
        context = open_run(home, registry, run)
        heads = {expert.global_index: expert.head for expert in registry.library.experts()}
        (dig, same), (goto, _), (made, none) = sorted(heads.items())
        assert none is None
        results = [ExpertResult(dig, same.content, 0, same.id), ExpertResult(made, "any", 0, None)]
        assert compare(home, registry, context, results) == Compared({dig: same.id, made: None}, {})
        changed = [ExpertResult(goto, put(home, nudged(get(home, same.content), 7)), 1, same.id)]
        once, again = (compare(home, registry, context, changed) for _ in range(2))
    assert once == again and set(once.measured) == {goto}, "the same worlds each time it is done"
