"""Knowledge bases: what is read, and that each mistake is named by file, skill and field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrl_core.errors import InputError, KnowledgeError
from flowrl_core.skills.effects import as_text, parse_amount
from flowrl_core.skills.knowledge import Knowledge, load_knowledge, shipped
from flowrl_core.skills.model import Guard, Linear, Skill

DIG = """
[skills.dig_a]
description = "Dig"
done = "since.a >= n"
reward = "gained.a"
gain = { "inv.a" = "n" }
"""
BENCH = """
[skills.goto_bench]
description = "Walk"
done = "near.bench"
reward = "closer.bench"
ephemeral = true
gain = { "near.bench" = 1 }
"""
MAKE = """
[skills.make_b]
description = "Make"
done = "since.b >= n"
reward = "gained.b"
target = "bench"
actions = ["left", "make_b"]
learn_count = 2
requirements = { "near.bench" = 1 }
consumption = { "inv.a" = "n" }
gain = { "inv.b" = "n" }

[skills.make_b.training]
frames = 5000
learning_rate = 1

[skills.make_b.evaluation]
threshold = 0.9
stop_hopeless = false
"""


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str, *, head: str = 'env = "corridor"\n') -> Knowledge:
        path = tmp_path / "mine.toml"
        path.write_text(head + text, encoding="utf-8")
        return load_knowledge(path)

    return load


def test_every_field_of_a_skill_is_read(load) -> None:
    knowledge = load(DIG + BENCH + MAKE)
    skill = knowledge.skills["make_b"]
    assert (knowledge.env, knowledge.source) == ("corridor", "mine.toml")
    assert list(knowledge.skills) == ["dig_a", "goto_bench", "make_b"]
    assert (skill.description, skill.program.done, skill.program.reward) == ("Make", "since.b >= n", "gained.b")
    assert (skill.target, skill.actions, skill.learn_count, skill.ephemeral) == ("bench", ("left", "make_b"), 2, False)
    assert skill.gain == {"inv.b": Linear(1, 0)} and skill.progress == "inv.b"
    assert skill.requirements == {"near.bench": Linear(0, 1)} and skill.consumption == {"inv.a": Linear(1, 0)}
    assert knowledge.training == {"make_b": {"frames": 5000, "learning_rate": 1.0}}
    assert knowledge.evaluation == {"make_b": {"threshold": 0.9, "stop_hopeless": False}}
    assert knowledge.providers("inv.a") == ("dig_a",) and knowledge.providers("inv.c") == ()
    assert Skill.from_dict(skill.as_dict()) == skill


GUARD = """
[skills.dig_a.guard]
takes_over = "dist.mine <= 1"
gives_back = "dist.mine >= 3"
reward = "gained.a"
"""


def test_a_guard_and_the_plans_that_it_guards_are_read(load) -> None:
    known = load(DIG + GUARD + BENCH + 'guards = ["dig_a"]\n')
    assert known.skills["dig_a"].guard == Guard("dist.mine <= 1", "dist.mine >= 3", "gained.a")
    assert known.skills["goto_bench"].guards == ("dig_a",) and known.skills["dig_a"].guards == ()
    for skill in known.skills.values():
        assert Skill.from_dict(skill.as_dict()) == skill
    without = load(DIG + GUARD.replace('reward = "gained.a"', "")).skills["dig_a"]
    assert without.guard is not None and without.guard.reward == ""


def test_what_a_skill_begins_as_is_read_and_is_a_part_of_its_definition(load) -> None:
    known = load(DIG + BENCH + 'begins_as = "dig_a"\n')
    skill = known.skills["goto_bench"]
    assert skill.begins_as == "dig_a" and skill.helpers == ("dig_a",)
    assert Skill.from_dict(skill.as_dict()) == skill
    assert skill.identity("corridor") != load(DIG + BENCH).skills["goto_bench"].identity("corridor")


def test_a_skill_without_guards_has_the_identity_that_it_had_before_there_were_any(load) -> None:
    plain = load(DIG).skills["dig_a"]
    assert "guard" not in plain.as_dict() and "guards" not in plain.as_dict()
    assert len({load(text).skills["dig_a"].identity("corridor") for text in (DIG, DIG + GUARD)}) == 2


def test_an_unknown_skill_is_answered_with_the_nearest_names(load) -> None:
    with pytest.raises(InputError, match="dig_a"):
        load(DIG).skill("dig")


MISTAKES = {
    "unknown key": (DIG + 'rewrad = "1"', "mine.toml: dig_a: rewrad: unknown key. Did you mean reward"),
    "missing done": (DIG.replace('done = "since.a >= n"', ""), "mine.toml: dig_a: done: is missing"),
    "wrong type": (DIG.replace('"Dig"', "3"), "mine.toml: dig_a: description: must be a text, not 3"),
    "a number for true": (DIG + "ephemeral = 1", "dig_a: ephemeral: must be true or false"),
    "true for a number": (DIG + "learn_count = true", "dig_a: learn_count: must be a whole number"),
    "unknown fluent": (DIG.replace('"inv.a"', '"inv.aa"'), "mine.toml: dig_a: gain: 'inv.aa' is not known. Did you"),
    "unknown action": (DIG + 'actions = ["digg"]', "dig_a: actions: 'digg' is not known. Did you mean dig"),
    "action of a wrong type": (DIG + "actions = [3]", "dig_a: actions: 3 is not known"),
    "unknown target": (DIG + 'target = "mime"', "dig_a: target: 'mime' is not known. Did you mean mine"),
    "no gain": (DIG.replace('gain = { "inv.a" = "n" }', ""), "dig_a: gain: is empty"),
    "form of an amount": (DIG.replace('"n" }', '"n**2" }'), "dig_a: gain.inv.a: 'n[*][*]2' is not of the form"),
    "negative amount": (DIG.replace('"n" }', '"n - 2" }'), "dig_a: gain.inv.a: can be as low as -1"),
    "amount of a wrong type": (DIG.replace('"n" }', "1.5 }"), "dig_a: gain.inv.a: an amount must be a whole number"),
    "amount that is true": (DIG.replace('"n" }', "true }"), "dig_a: gain.inv.a: an amount must be a whole number"),
    "nothing gained": (DIG.replace('"n" }', "0 }"), "dig_a: gain.inv.a: can be as low as 0"),
    "capacity": (DIG + "learn_count = 5\nconsumption = {'inv.b' = '2*n'}", "consumption.inv.b: is 10 for n = 5"),
    "learn_count": (DIG + "learn_count = 10", "dig_a: learn_count: must be from 1 to 9, not 10"),
    "distance in a gain": (DIG.replace("inv.a", "dist.mine"), "gain.dist.mine: a distance is not allowed here"),
    "place consumed": (BENCH + "consumption = {'near.bench' = 1}", "consumption.near.bench: a place is not allowed"),
    "place that depends on n": (BENCH.replace("= 1 }", '= "n" }'), "gain.near.bench: .* must not depend on n"),
    "place without ephemeral": (BENCH.replace("ephemeral = true", ""), "goto_bench: ephemeral: must be true"),
    "ephemeral without place": (DIG + "ephemeral = true", "dig_a: ephemeral: is true, but"),
    "program": (DIG.replace("since.a >= n", "1 < 2"), "mine.toml: dig_a: done: .always_true"),
    "reward": (DIG.replace('"gained.a"', '"__import__"'), r"mine.toml: dig_a: reward: \["),
    "training field": (DIG + "[skills.dig_a.training]\nframs = 3", "dig_a: training.frams: .* Did you mean frames"),
    "training value": (DIG + "[skills.dig_a.training]\nframes = 0", "dig_a: training.frames: must be at least 1"),
    "training type": (DIG + '[skills.dig_a.training]\nframes = "many"', "dig_a: training.frames: must be a whole"),
    "threshold": (DIG + "[skills.dig_a.evaluation]\nthreshold = 1.0", "dig_a: evaluation.threshold: .*less than 1"),
    "requirement nobody provides": (DIG + "requirements = {'inv.k' = 1}", "dig_a: requirements: no skill gains inv.k"),
    "consumption nobody provides": (DIG + "consumption = { 'inv.k' = 1 }", "dig_a: consumption: no skill gains inv.k"),
    "a skill that requires itself": (DIG + "requirements = { 'inv.a' = 1 }", "cyclic: dig_a needs dig_a"),
    "names equal up to case": (DIG + DIG.replace("dig_a", "Dig_A"), "Dig_A: name: 'Dig_A' and 'dig_a' differ only"),
    "names equal up to Unicode": (DIG + DIG.replace("[skills.dig_a]", '[skills."ｄig_a"]'), "differ only in case or"),
    "a path as name": (DIG.replace("skills.dig_a", 'skills."../a"'), "name: '../a' is not a valid skill name"),
    "a table that is none": ("[skills]\ndig_a = 3", "dig_a: skill: must be a table"),
    "no skills": ("", "mine.toml: skills: there are no skills"),
    "guard key": (DIG + GUARD + 'n = "1"', "mine.toml: dig_a: guard.n: unknown key"),
    "guard lacks": (DIG + GUARD.replace("gives_back", "reward", 1).replace('reward = "gained.a"', ""), "gives_back"),
    "guard program": (DIG + GUARD.replace("dist.mine <= 1", "dist.mine >= 0"), r"takes_over: \[always_true\] it is"),
    "guard kind": (DIG + GUARD.replace("dist.mine >= 3", "dist.mine"), r"gives_back: \[wrong_kind\] `dist.mine`"),
    "guards itself": (DIG + 'guards = ["dig_a"]' + GUARD, "dig_a: guards: names the skill itself"),
    "guards twice": (DIG + GUARD + BENCH + 'guards = ["dig_a", "dig_a"]', "goto_bench: guards: names a skill twice"),
    "guards unknown": (DIG + 'guards = ["dig_b"]', "dig_a: guards: there is no skill 'dig_b'"),
    "guards none": (DIG + BENCH + 'guards = ["dig_a"]', "guards: 'dig_a' declares no guard. Give it a table `guard`"),
    "guards circle": (
        DIG + 'guards = ["goto_bench"]' + GUARD + BENCH + 'guards = ["dig_a"]\nguard.takes_over = "near.bench"\n'
        'guard.gives_back = "not near.bench"',
        "cyclic: ",
    ),
    "begins as itself": (DIG + 'begins_as = "dig_a"', "dig_a: begins_as: names the skill itself"),
    "begins as nothing": (DIG + 'begins_as = "dig_b"', "dig_a: begins_as: there is no skill 'dig_b'. .*dig_a"),
    "begins as a number": (DIG + "begins_as = 3", "dig_a: begins_as: must be a text, not 3"),
    "begins as each other": (DIG + 'begins_as = "goto_bench"' + BENCH + 'begins_as = "dig_a"', "cyclic: "),
    "top key": ("version = 2" + DIG, "mine.toml: version: unknown key"),
    "not TOML": ("[[[", "mine.toml: is not valid TOML .*line 2"),
    "the same skill twice": (DIG + DIG, "mine.toml: is not valid TOML"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(load, text: str, message: str) -> None:
    with pytest.raises(KnowledgeError, match=message):
        load(text)


def test_a_cycle_is_named_in_the_order_of_needs(load) -> None:
    make = '[skills.{0}]\ndescription = ""\ndone = "since.{0} >= n"\nreward = "gained.{0}"\n'
    make += 'gain = {{ "inv.{0}" = 1 }}\nrequirements = {{ "inv.{1}" = 1 }}\n'
    circle = ["b", "c", "d", "b", "c", "d"]
    turns = "|".join(" needs ".join(circle[i : i + 4]) for i in range(3))
    with pytest.raises(KnowledgeError, match=f"requirements: cyclic: ({turns})[.]"):
        load(make.format("b", "c") + make.format("c", "d") + make.format("d", "b"))


@pytest.mark.parametrize("head", ["", "env = 3\n", 'env = "corridoor"\n'])
def test_a_wrong_env_is_named(load, head: str) -> None:
    with pytest.raises(KnowledgeError, match="mine.toml: env: "):
        load(DIG, head=head)


def test_a_knowledge_base_for_another_environment_is_refused(tmp_path: Path) -> None:
    from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC

    path = tmp_path / "mine.toml"
    path.write_text('env = "corridor"' + DIG)
    with pytest.raises(KnowledgeError, match="is 'corridor', not 'craftax-classic'"):
        load_knowledge(path, CRAFTAX_CLASSIC)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="nowhere.toml: No such file"):
        load_knowledge(tmp_path / "nowhere.toml")
    with pytest.raises(KnowledgeError, match="Is a directory"):
        load_knowledge(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'env = "\xe9"')
    with pytest.raises(KnowledgeError, match="not UTF-8"):
        load_knowledge(tmp_path / "latin.toml")


@pytest.mark.parametrize("env", ["craftax-classic", "craftax_classic", "corridor"])
def test_a_shipped_knowledge_base_loads_by_name_and_by_file(env: str) -> None:
    assert load_knowledge(env) == load_knowledge(shipped(env))


def test_a_name_that_is_not_shipped_is_refused() -> None:
    with pytest.raises(InputError, match="craftax-classic"):
        load_knowledge("craftax-clasic")


@given(per_n=st.integers(-99, 99), fixed=st.integers(-99, 99))
def test_amounts_are_read_as_they_are_written(per_n: int, fixed: int) -> None:
    assert parse_amount(as_text(Linear(per_n, fixed))) == Linear(per_n, fixed)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("n", (1, 0)), (" 2 * n ", (2, 0)), ("n*2", (2, 0)), ("0*n + 4", (0, 4)), ("n + n - 1", (2, -1)),
        ("-n+9", (-1, 9)),
        (7, (0, 7)), ("7", (0, 7)),
    ],
)  # fmt: skip
def test_forms_of_amounts(text: int | str, amount: tuple[int, int]) -> None:
    assert parse_amount(text) == Linear(*amount)


OTHER_FORMS = [
    "", " ", "n n", "2n", "n*n", "2*3", "m", "n+", "1e3", "0x10", "99999", "n; 1", "lambda n: n", "２",
]  # fmt: skip


@pytest.mark.parametrize("text", OTHER_FORMS)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="form"):
        parse_amount(text)


@given(st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 99), st.booleans()), min_size=1, max_size=5))
def test_terms_add_up(terms: list[tuple[str, int, bool]]) -> None:
    text = " ".join(f"{sign} {size}{' * n' if is_per_n else ''}" for sign, size, is_per_n in terms)
    sizes = [(-size if sign == "-" else size, is_per_n) for sign, size, is_per_n in terms]
    per_n = sum(size for size, is_per_n in sizes if is_per_n)
    assert parse_amount(text) == Linear(per_n, sum(size for size, is_per_n in sizes if not is_per_n))
