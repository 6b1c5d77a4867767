"""The planner: known plans, and that the independent judge passes whatever it returns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrl_core.errors import InputError, PlanError
from flowrl_core.programs.model import Program
from flowrl_core.skills.knowledge import Knowledge
from flowrl_core.skills.model import Linear, Plan, Skill, Step
from flowrl_core.skills.planner import make_plan
from flowrl_core.skills.symbolic import execute, kept
from flowrl_core.vocabulary.model import Fluent, Vocabulary

ITEMS = ("a", "b", "c", "d", "e")
VOCABULARY = Vocabulary(
    observation_size=1,
    env="paper",
    fluents=(
        *(Fluent(f"inv.{item}", "count", 0, 9) for item in ITEMS),
        Fluent("inv.tool", "tier", 0, 3),
        Fluent("ach.x", "flag", 0, 1),
        Fluent("near.p", "place", 0, 1),
        Fluent("near.q", "place", 0, 1),
    ),
    actions=("do",),
    targets=(),
)


def skill(
    name: str,
    gain: Mapping[str, Linear | int],
    consumption: Mapping[str, Linear | int] | None = None,
    requirements: Mapping[str, Linear | int] | None = None,
) -> Skill:
    def effects(amounts: Mapping[str, Linear | int] | None) -> dict[str, Linear]:
        return {k: v if isinstance(v, Linear) else Linear(0, v) for k, v in (amounts or {}).items()}

    is_ephemeral = any(fluent.startswith("near.") for fluent in gain)
    program = Program("inv.a >= n", "gained.a")
    return Skill(name, "", program, effects(gain), effects(requirements), effects(consumption), is_ephemeral)


def knowledge_of(*skills: Skill) -> Knowledge:
    return Knowledge("paper", "paper", VOCABULARY, {s.name: s for s in skills})


def steps(plan: Plan) -> str:
    return " ".join(f"{step.skill}:{step.n}" for step in plan.steps)


N = Linear(1, 0)
GET_A = skill("get_a", {"inv.a": N})
GOTO_P = skill("goto_p", {"near.p": 1}, {"inv.a": 2})


def test_what_several_steps_consume_is_collected_once() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": N})
    make_c = skill("make_c", {"inv.c": N}, {"inv.a": Linear(2, 1), "inv.b": 1})
    plan = make_plan(knowledge_of(GET_A, make_b, make_c), "make_c", n=2)
    assert steps(plan) == "get_a:6 make_b:1 make_c:2"


def test_a_requirement_is_a_level_and_is_not_used_up() -> None:
    make_b = skill("make_b", {"inv.b": N}, requirements={"inv.a": 3})
    make_c = skill("make_c", {"inv.c": N}, {"inv.b": 1}, {"inv.a": 3})
    plan = make_plan(knowledge_of(GET_A, make_b, make_c), "make_c")
    assert steps(plan) == "get_a:3 make_b:1 make_c:1"
    assert execute(plan, knowledge_of(GET_A, make_b, make_c)) == {"inv.a": 3, "inv.c": 1}


def test_a_place_is_reached_again_when_a_step_has_left_it() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": 1}, {"near.p": 1})
    get_c = skill("get_c", {"inv.c": N}, requirements={"inv.b": 1})
    make_d = skill("make_d", {"inv.d": N}, {"inv.c": 1, "inv.a": 1}, {"near.p": 1})
    plan = make_plan(knowledge_of(GET_A, GOTO_P, make_b, get_c, make_d), "make_d")
    assert steps(plan) == "get_a:6 goto_p:1 make_b:1 get_c:1 goto_p:1 make_d:1"


def test_steps_at_one_place_share_it() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": 1}, {"near.p": 1})
    make_c = skill("make_c", {"inv.c": N}, {"inv.a": 1}, {"near.p": 1})
    make_d = skill("make_d", {"inv.d": N}, {"inv.b": 1, "inv.c": 1}, {"near.p": 1})
    plan = make_plan(knowledge_of(GET_A, GOTO_P, make_b, make_c, make_d), "make_d")
    assert steps(plan) == "get_a:4 goto_p:1 make_b:1 make_c:1 make_d:1"


def test_more_than_can_be_held_is_collected_in_two_parts_the_larger_first() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": 5})
    make_c = skill("make_c", {"inv.c": N}, {"inv.a": 7, "inv.b": 1})
    knowledge = knowledge_of(GET_A, make_b, make_c)
    assert steps(make_plan(knowledge, "make_c")) == "get_a:9 make_b:1 get_a:3 make_c:1"
    assert execute(make_plan(knowledge, "make_c"), knowledge) == {"inv.c": 1}


def test_a_skill_is_repeated_where_one_step_of_it_would_use_more_than_can_be_held() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": Linear(4, 0)})
    make_c = skill("make_c", {"inv.c": N}, {"inv.b": 3})
    assert (
        steps(make_plan(knowledge_of(GET_A, make_b, make_c), "make_c")) == "get_a:9 make_b:2 get_a:3 make_b:1 make_c:1"
    )


def test_a_place_kept_by_a_requirement_of_none() -> None:
    goto_q = skill("goto_q", {"near.q": 1}, {"inv.b": 1}, {"near.p": 0})
    get_b = skill("get_b", {"inv.b": N})
    make_c = skill("make_c", {"inv.c": N}, requirements={"near.p": 1, "near.q": 1})
    knowledge = knowledge_of(GET_A, get_b, GOTO_P, goto_q, make_c)
    assert steps(make_plan(knowledge, "make_c")) == "get_a:2 get_b:1 goto_p:1 goto_q:1 make_c:1"
    assert steps(make_plan(knowledge, "goto_q")) == "get_b:1 goto_q:1"


def test_a_step_keeps_what_later_steps_need_and_no_more() -> None:
    goto_q = skill("goto_q", {"near.q": 1}, {"inv.b": 1}, {"near.p": 0})
    both = skill("both", {"ach.x": 1}, {"inv.a": 1}, {"near.p": 1, "near.q": 1, "inv.tool": 2})
    known = knowledge_of(GET_A, skill("get_b", {"inv.b": N}), skill("get_tool", {"inv.tool": 2}), GOTO_P, goto_q, both)
    plan = make_plan(known, "both")
    held = dict(zip((step.skill for step in plan.steps), kept(plan, known.skills, known.fluents), strict=True))
    assert held["goto_q"] == {"near.p": 1, "near.q": 1, "inv.tool": 2, "inv.a": 1}
    assert held["goto_p"] == {"near.p": 1, "inv.tool": 2, "inv.a": 1, "inv.b": 1}
    assert held["both"] == {}


def test_two_places_that_leave_each_other_cannot_be_had() -> None:
    goto_q = skill("goto_q", {"near.q": 1})
    make_c = skill("make_c", {"inv.c": N}, requirements={"near.p": 1, "near.q": 1})
    with pytest.raises(PlanError, match="cannot, because no skill reaches one of near.p and near.q without leaving"):
        make_plan(knowledge_of(GET_A, GOTO_P, goto_q, make_c), "make_c")


def test_a_tier_is_reached_by_the_skill_that_brings_enough_of_it() -> None:
    low = skill("low", {"inv.tool": 1})
    high = skill("high", {"inv.tool": 2}, {"inv.a": 1})
    make_b = skill("make_b", {"inv.b": N}, requirements={"inv.tool": 2})
    knowledge = knowledge_of(low, GET_A, high, make_b)
    assert steps(make_plan(knowledge, "make_b")) == "get_a:1 high:1 make_b:1"
    with pytest.raises(PlanError, match="low cannot gain 2 of inv.tool"):
        make_plan(knowledge, "make_b", learned={"low"})


def test_of_two_providers_the_one_with_the_shorter_plan_is_used() -> None:
    long_way = skill("long_way", {"inv.c": N}, {"inv.b": N})
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": N})
    short_way = skill("short_way", {"inv.c": N}, {"inv.a": N})
    make_d = skill("make_d", {"inv.d": N}, {"inv.c": 1})
    knowledge = knowledge_of(GET_A, make_b, long_way, short_way, make_d)
    assert steps(make_plan(knowledge, "make_d")) == "get_a:1 short_way:1 make_d:1"
    only = {"get_a", "make_b", "long_way"}
    assert steps(make_plan(knowledge, "make_d", learned=only)) == "get_a:1 make_b:1 long_way:1 make_d:1"


def test_a_skill_that_is_not_learned_is_named_with_the_remedy() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": 1})
    make_c = skill("make_c", {"inv.c": N}, {"inv.b": 1})
    with pytest.raises(PlanError, match="because make_b needs inv.a, and no usable skill .* Learn get_a first"):
        make_plan(knowledge_of(GET_A, make_b, make_c), "make_c", learned={"make_b"})


def test_more_at_once_than_can_be_held_cannot_be_had() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": Linear(2, 0)})
    with pytest.raises(PlanError, match="cannot, because make_b needs more inv.a at once than the capacity allows"):
        make_plan(knowledge_of(GET_A, make_b), "make_b", n=5)
    at_place = skill("at_place", {"inv.b": N}, {"inv.a": 8}, {"near.p": 1})
    with pytest.raises(PlanError, match="at_place needs more inv.a at once"):
        make_plan(knowledge_of(GET_A, GOTO_P, at_place), "at_place")


def test_cyclic_knowledge_is_named() -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.c": 1})
    make_c = skill("make_c", {"inv.c": N}, {"inv.b": 1})
    make_d = skill("make_d", {"inv.d": N}, {"inv.b": 1})
    with pytest.raises(PlanError, match="cannot, because make_b needs make_c needs make_b"):
        make_plan(knowledge_of(make_b, make_c, make_d), "make_d")


def test_an_unknown_target_or_count_is_refused() -> None:
    with pytest.raises(InputError, match="get_a"):
        make_plan(knowledge_of(GET_A), "get_aa")
    with pytest.raises(PlanError, match="n is 10"):
        make_plan(knowledge_of(GET_A), "get_a", n=10)


# The judge.


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([("goto_p", 1), ("make_b", 1)], "step 1: goto_p needs 2 of inv.a, but has 0"),
        ([("get_a", 3), ("make_b", 1)], "step 2: make_b needs 1 of near.p, but has 0"),
        ([("get_a", 3), ("goto_p", 1), ("get_a", 1), ("make_b", 1)], "step 4: make_b needs 1 of near.p"),
        ([("get_a", 9), ("get_a", 1), ("make_b", 1)], "step 2: get_a would raise inv.a to 10"),
        ([("get_a", 0), ("make_b", 1)], "step 1: get_a has n = 0"),
        ([("get_z", 1)], "step 1: there is no skill get_z"),
        ([("get_a", 1)], "does not end with its target"),
        ([], "does not end with its target"),
    ],
)
def test_the_judge_refuses_a_bad_plan(plan: list[tuple[str, int]], message: str) -> None:
    make_b = skill("make_b", {"inv.b": N}, {"inv.a": 1}, {"near.p": 1})
    with pytest.raises(PlanError, match=message):
        execute(Plan("make_b", tuple(Step(*step) for step in plan)), knowledge_of(GET_A, GOTO_P, make_b))


def test_the_judge_adds_counts_and_takes_the_larger_tier() -> None:
    knowledge = knowledge_of(
        GET_A, skill("low", {"inv.tool": 1, "ach.x": 1}), skill("high", {"inv.tool": 3}), skill("use", {"inv.b": N})
    )
    plan = Plan("use", (Step("get_a", 2), Step("high", 1), Step("low", 2), Step("get_a", 3), Step("use", 4)))
    assert execute(plan, knowledge) == {"inv.a": 5, "inv.tool": 3, "ach.x": 1, "inv.b": 4}


# Random knowledge: each skill needs only what skills before it gain.

KINDS = {fluent.name: fluent.kind for fluent in VOCABULARY.fluents}


@st.composite
def random_knowledge(draw: st.DrawFn, most: int) -> Knowledge:
    skills: list[Skill] = []
    order = draw(st.permutations(sorted(KINDS)))[:most]
    for rank, fluent in enumerate(order):
        needed = draw(st.lists(st.sampled_from(order[:rank]), unique=True, max_size=3)) if rank else []
        requirements: dict[str, Linear | int] = {}
        consumption: dict[str, Linear | int] = {}
        for name in needed:
            if KINDS[name] == "count":
                amount = draw(
                    st.sampled_from([N, Linear(0, 1), Linear(0, 2), Linear(1, 1), Linear(2, 0), Linear(0, 4)])
                )
                (consumption if draw(st.booleans()) else requirements)[name] = amount
            else:
                low = 0 if KINDS[name] == "place" else 1
                requirements[name] = draw(st.integers(low, 2 if KINDS[name] == "tier" else 1))
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            gain = (
                draw(st.sampled_from([N, N, Linear(0, 1), Linear(2, 0)])) if KINDS[fluent] == "count" else Linear(0, 1)
            )
            if KINDS[fluent] == "tier":
                gain = Linear(0, draw(st.integers(1, 3)))
            skills.append(skill(f"s{len(skills)}", {fluent: gain}, consumption, requirements))
    return knowledge_of(*skills)


@settings(max_examples=150, deadline=None)
@given(knowledge=random_knowledge(most=9), n=st.integers(1, 9), data=st.data())
def test_the_judge_passes_every_plan_that_is_returned(knowledge: Knowledge, n: int, data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sorted(knowledge.skills)))
    try:
        plan = make_plan(knowledge, target, n=n)
    except PlanError as exc:
        assert "cannot, because" in exc.problem or "would raise" in exc.problem
        return
    execute(plan, knowledge)
    assert plan.steps[-1] == Step(target, n)
    assert plan == make_plan(knowledge, target, n=n)
    for number, amounts in enumerate(kept(plan, knowledge.skills, knowledge.fluents), 1):
        after = execute(Plan(plan.steps[number - 1].skill, plan.steps[:number]), knowledge)
        assert all(after.get(name, 0) >= least > 0 for name, least in amounts.items()), "each step can keep it"


def fewest_steps(knowledge: Knowledge, target: str, n: int, *, depth: int) -> int | None:
    """The length of the shortest plan, by trying all up to `depth` steps."""
    reached: set[tuple[Step, ...]] = {()}
    seen = {frozenset[tuple[str, int]]()}
    for length in range(1, depth + 1):
        longer: set[tuple[Step, ...]] = set()
        for steps_, name in itertools.product(reached, knowledge.skills):
            for m in (n,) if name == target else range(1, 10):
                tried = (*steps_, Step(name, m))
                try:
                    state = frozenset(execute(Plan(name, tried), knowledge).items())
                except PlanError:
                    continue
                if name == target:
                    return length
                if state not in seen:
                    seen.add(state)
                    longer.add(tried)
        reached = longer
    return None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(knowledge=random_knowledge(most=4), n=st.integers(1, 3))
def test_no_plan_is_shorter(knowledge: Knowledge, n: int) -> None:
    target = list(knowledge.skills)[-1]
    fewest = fewest_steps(knowledge, target, n, depth=4)
    if fewest is not None:
        assert len(make_plan(knowledge, target, n=n).steps) == fewest
