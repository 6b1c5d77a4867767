"""The program language accepts what skills need and refuses the rest with a code and a remedy, within milliseconds."""

import subprocess
import sys
import time

import pytest

from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.errors import ProgramError
from flowrl_core.programs.expressions import TINY, interval_of
from flowrl_core.programs.language import check_done, check_reward

CHECKS = {"done": check_done, "reward": check_reward}

ACCEPTED_DONE = [
    "inv.wood >= n",
    "since.wood >= n",
    "near.crafting_table and ach.place_table",
    "health < 9 and n >= 1",
    "1 < inv.wood < 5 <= food",
    "new_ach.eat_cow or (not near.furnace and since.coal * 2 > n)",
    "dist.tree == 1 and inv.wood != 0",
    "near.furnace",
    "  inv.wood\n  >= n  ",
    "ach.wake_up if energy > 3 else new_ach.wake_up",
]
ACCEPTED_REWARD = [
    ("gained.wood", (-9, 9)),
    ("gained.wood + 0.1 * d.health", (-9.9, 9.9)),
    ("gained.wood + 0.01 * closer.tree", (-9.08, 9.08)),
    ("(1 if near.crafting_table and ach.place_table else 0) + 0.1 * d.health", (-0.9, 1.9)),
    ("-d.health", (-9, 9)),
    ("1 - dist.tree / 8", (0, 1)),
    ("gained.wood / max(inv.wood, 1)", (-9, 9)),
    ("sqrt(d.food * d.food) - 1", (-1, 8)),
    ("tanh(gained.stone) * 2", (-2, 2)),
    ("clip(gained.wood, 0, 2) + min(1, d.food, n)", (-9, 3)),
    ("abs(closer.tree) - 0.5", (-0.5, 7.5)),
    ("1 if new_ach.collect_wood else -0.01", (-0.01, 1)),
    ("(2 if ach.eat_cow else 1) * gained.wood", (-18, 18)),
    ("0.1 * gained.dealt.zombie", (0, 0.5)),
    ("(1 if new_ach.eat_cow else 0) + 0.1 * gained.dealt.cow + 0.1 * d.health", (-0.9, 2.2)),
    ("1 - 0.1 * gained.taken.damage", (0.1, 1)),
    ("since.dealt.cow - dealt.cow", (-99, 99)),
]

HOSTILE = [
    # statements, loops, recursion, functions with a wrong signature or shape
    ("while True: pass", "character"),
    ("for i in n", "syntax"),
    ("def done(s): return done(s)", "character"),
    ("def done(s)", "syntax"),
    ("return n", "syntax"),
    ("n = 3", "syntax"),
    ("global n", "syntax"),
    ("@jit", "character"),
    ("if inv.wood: 1", "character"),
    # reaching for the interpreter
    ("import os", "syntax"),
    ("__import__('os').system('true')", "character"),
    ("__import__(n)", "unknown_function"),
    ("().__class__.__bases__", "not_allowed"),
    ("inv.wood.__class__ >= n", "unknown_name"),
    ("fn.__globals__", "unknown_name"),
    ("getattr(inv, n) >= n", "unknown_function"),
    ("eval(n)", "unknown_function"),
    ("open(n)", "unknown_function"),
    ("socket.socket().connect(n)", "unknown_function"),
    ("jax.pure_callback(n)", "unknown_function"),
    ("jax.debug.print(n)", "unknown_function"),
    ("print(n)", "unknown_function"),
    ("min(n, 2)(3)", "unknown_function"),
    # other syntax of Python
    ("[inv.wood for i in n]", "character"),
    ("(n for i in n)", "not_allowed"),
    ("lambda: n", "character"),
    ("(n := 3) > 2", "character"),
    ("max(*n)", "arguments"),
    ("max(n, 2, key=n)", "arguments"),
    ("(n, n)", "not_allowed"),
    ("inv[n] >= 1", "character"),
    ("{n}", "character"),
    ("await n", "not_allowed"),
    ("(yield n)", "not_allowed"),
    ("n is n", "not_allowed"),
    ("n in inv.wood", "not_allowed"),
    ("n not in food", "not_allowed"),
    ("...", "not_allowed"),
    ("None", "not_allowed"),
    ("True", "not_allowed"),
    ("+n >= 1", "not_allowed"),
    ("~n", "character"),
    ("n ** 9 ** 9 ** 9", "not_allowed"),
    ("1 << 999999", "not_allowed"),
    ("n // 2 >= 1", "not_allowed"),
    ("n % 2 == 1", "character"),
    ("n @ n", "character"),
    ("n; n", "character"),
    ("n # >= 3", "character"),
    ("n \\\n >= 3", "character"),
    # bombs
    ("1e300 > n", "constant_range"),
    ("1e999 > n", "constant_range"),
    ("1e-300 < n", "constant_range"),
    ("1j", "syntax"),
    ("0x10 > n", "syntax"),
    ("1_000 > n", "syntax"),
    ("1if near.furnace else 2", "syntax"),
    ("9" * 900 + " > n", "constant_range"),
    ("9" * 5000, "too_long"),
    ("'a' * 999999999", "character"),
    ('f"{n:999999999}"', "character"),
    ("x" * 6000, "too_long"),
    ("(" * 400 + "n" + ")" * 400, "too_deep"),
    ("(" * 400, "too_deep"),
    ("-" * 400 + "n", "too_deep"),
    ("not " * 240 + "near.furnace", "too_deep"),
    ("+".join(["n"] * 499), "too_deep"),
    ("min(" + ",".join(["n"] * 400) + ")", "too_large"),
    ("max(" * 31 + "n, 1", "syntax"),
    ("jnp.zeros((n, n))", "unknown_function"),
    ("arange(1000000)", "unknown_function"),
    ("inv.wood" + ".a" * 400, "too_deep"),
    # text that is not what it seems
    ("inv.wood >= n\0", "character"),
    ("\u0131nv.wood >= n", "not_ascii"),
    ("inv.\ufb01sh >= n", "not_ascii"),
    ("inv.wood \u2265 n", "not_ascii"),
    ("inv.wood\u00a0>= n", "not_ascii"),
    ("Here is the program you asked for", "syntax"),
    ("```python\ninv.wood >= n\n```", "character"),
    ("**inv.wood >= n**", "syntax"),
    ("", "empty"),
    (" \n ", "empty"),
    # kinds
    ("near.furnace >= 1", "wrong_kind"),
    ("near.furnace == ach.eat_cow", "wrong_kind"),
    ("inv.wood and near.furnace", "wrong_kind"),
    ("not inv.wood", "wrong_kind"),
    ("1 + near.furnace > 1", "wrong_kind"),
    ("(n if inv.wood else 1) > 2", "wrong_kind"),
    ("(near.furnace if ach.eat_cow else 1) > 2", "wrong_kind"),
    ("max(near.furnace, 1) > 0", "wrong_kind"),
    ("clip(n) > 1", "arguments"),
    ("abs() > 1", "arguments"),
    # what could be computed
    ("0 / 0 > n", "division"),
    ("n / inv.wood > 1", "division"),
    ("1 / (inv.wood - 3) > 1", "division"),
    ("(1 / inv.wood if inv.wood > 0 else 0) > 1", "division"),
    ("sqrt(-1) > n", "square_root"),
    ("sqrt(d.health) > 1", "square_root"),
    ("clip(inv.wood, 5, 2) > 1", "clip_bounds"),
    ("inv.wood * 1000000 * 1000000 > 1", "magnitude"),
    ("1 / (n * 0.000001 * 0.000001) > 1", "magnitude"),
    # names
    ("inv.woood >= n", "unknown_name"),
    ("inv >= n", "unknown_name"),
    ("gained.health > 0", "unknown_name"),
    ("new_ach.fly", "unknown_name"),
    ("nan > n", "unknown_name"),
    ("inv.wood.stone > 1", "unknown_name"),
]
TRIVIAL = [
    ("done", "n >= 1", "always_true"),
    ("done", "inv.wood >= 0", "always_true"),
    ("done", "1 > 0", "always_true"),
    ("done", "near.furnace or not near.furnace", "always_true"),
    ("done", "inv.wood >= 10", "never_true"),
    ("done", "since.wood > 9", "never_true"),
    ("done", "inv.wood > 5 and inv.wood < 3", "never_true"),
    ("done", "near.furnace and not near.furnace", "never_true"),
    ("done", "since.wood >= 0", "true_at_start"),
    ("done", "since.wood >= n - 1", "true_at_start"),
    ("done", "inv.wood < n", "true_at_start"),
    ("done", "not ach.eat_cow", "true_at_start"),
    ("done", "d.health >= 0 and gained.wood == 0", "true_at_start"),
    ("done", "health >= 0 and closer.tree <= 0", "true_at_start"),
    ("done", "inv.wood", "wrong_kind"),
    ("reward", "1", "constant"),
    ("reward", "0 * gained.wood", "constant"),
    ("reward", "gained.wood - gained.wood", "constant"),
    ("reward", "gained.wood + d.health - d.health - gained.wood", "constant"),
    ("reward", "2 if inv.wood >= 0 else 1", "constant"),
    ("reward", "0 - inv.wood", "never_positive"),
    ("reward", "-abs(d.health)", "never_positive"),
    ("reward", "1000000 * gained.wood", "reward_range"),
    ("reward", "1000000 * gained.wood * 100", "reward_range"),
    ("reward", "1112 * gained.wood", "reward_range"),
    ("reward", "inv.wood >= n", "wrong_kind"),
    ("reward", "new_ach.eat_cow", "wrong_kind"),
]


@pytest.mark.parametrize("text", ACCEPTED_DONE)
def test_done_conditions_that_skills_need_are_accepted(text):
    checked = check_done(text, CRAFTAX_CLASSIC)
    assert checked.kind == "done"
    assert checked.interval == (0, 1)


@pytest.mark.parametrize(("text", "interval"), ACCEPTED_REWARD)
def test_rewards_that_skills_need_are_accepted_with_their_interval(text, interval):
    checked = check_reward(text, CRAFTAX_CLASSIC)
    assert checked.kind == "reward"
    assert checked.interval == pytest.approx(interval, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("text", "code"), HOSTILE, ids=lambda value: str(value)[:30].encode("unicode_escape").decode())
@pytest.mark.parametrize("field", ["done", "reward"])
def test_a_hostile_program_is_refused_with_code_and_remedy(field, text, code):
    with pytest.raises(ProgramError) as refused:
        CHECKS[field](text, CRAFTAX_CLASSIC)
    assert refused.value.code == code
    assert refused.value.field == field
    assert refused.value.remedy
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(("field", "text", "code"), TRIVIAL)
def test_a_program_that_says_nothing_is_refused(field, text, code):
    with pytest.raises(ProgramError) as refused:
        CHECKS[field](text, CRAFTAX_CLASSIC)
    assert refused.value.code == code


def test_every_refusal_takes_milliseconds():
    def seconds(text: str) -> float:
        start = time.thread_time()
        with pytest.raises(ProgramError):
            check_reward(text, CRAFTAX_CLASSIC)
        return time.thread_time() - start

    slowest = max(min(seconds(text) for _ in range(3)) for text, _ in HOSTILE)
    assert slowest < 0.02


def test_nesting_that_doubles_a_part_at_every_level_costs_no_more_than_its_text():
    def nested(levels: int) -> str:
        text = "inv.wood > 1"
        for _ in range(levels):
            text = f"0 < (1 if {text} else 0) < 2"
        return text

    start = time.thread_time()
    check_done(nested(8), CRAFTAX_CLASSIC)
    with pytest.raises(ProgramError, match="too_large"):
        check_done(nested(25), CRAFTAX_CLASSIC)
    assert time.thread_time() - start < 0.1


def test_everything_an_accepted_program_costs_is_milliseconds():
    heavy = "max(" * 30 + "inv.wood * inv.stone * inv.coal - food" + ", n)" * 30
    start = time.thread_time()
    with pytest.raises(ProgramError):
        check_done(f"{heavy} >= 1", CRAFTAX_CLASSIC)
    sums = " + ".join(
        f"tanh(inv.{a} * d.{b})" for a, b in [("wood", "health"), ("stone", "food"), ("wood", "food")] * 3
    )
    check_reward(sums, CRAFTAX_CLASSIC)
    assert time.thread_time() - start < 0.1


@pytest.mark.parametrize("value", [None, 3, b"inv.wood >= n", ["inv.wood >= n"]])
def test_what_is_not_text_is_refused(value):
    with pytest.raises(ProgramError) as refused:
        check_done(value, CRAFTAX_CLASSIC)
    assert refused.value.code == "not_text"


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    with pytest.raises(ProgramError, match="Did you mean inv.wood"):
        check_done("inv.wod >= n", CRAFTAX_CLASSIC)


def test_a_program_has_one_spelling_and_names_its_fluents():
    checked = check_reward("( gained.wood)+0.10*\n d.health", CRAFTAX_CLASSIC)
    assert checked.text == "gained.wood + 0.1 * d.health"
    assert checked.fluents == ("d.health", "gained.wood")
    assert check_reward(checked.text, CRAFTAX_CLASSIC) == checked


def test_names_belong_to_the_vocabulary():
    assert check_done("since.a >= n", CORRIDOR).fluents == ("n", "since.a")
    with pytest.raises(ProgramError, match="no fluent"):
        check_done("since.wood >= n", CORRIDOR)


@pytest.mark.parametrize(
    "text",
    [
        "dealt.cow >= 3",
        "since.dealt.cow >= n",
        "ach.eat_cow and gained.dealt.cow > 0",
        "near.furnace or dealt.zombie > 1",
    ],
)
def test_what_the_player_cannot_see_is_for_rewards_alone(text):
    with pytest.raises(ProgramError, match=r"done: \[hidden\] the player cannot see dealt\.(cow|zombie)") as refused:
        check_done(text, CRAFTAX_CLASSIC)
    assert refused.value.code == "hidden"
    assert check_reward(f"1 if {text} else 0", CRAFTAX_CLASSIC)


def test_a_total_that_the_player_sees_is_for_both():
    assert check_done("since.wood >= n and since.taken.damage < 4", CRAFTAX_CLASSIC)
    assert check_reward("-gained.taken.damage + 1", CRAFTAX_CLASSIC)


def test_a_rare_condition_is_not_mistaken_for_an_impossible_one():
    items = ("wood", "stone", "coal", "iron", "diamond")
    check_done(" and ".join(f"inv.{item} == 9" for item in items), CRAFTAX_CLASSIC)


def test_a_clip_whose_bounds_cross_keeps_its_values_inside_the_interval():
    checked = check_reward("clip(gained.wood, inv.stone, inv.coal)", CRAFTAX_CLASSIC)
    assert checked.interval == (0, 9)


def test_intervals_are_rounded_as_float32_is():
    assert interval_of("add", [(0.0, 1e6), (0.0, 0.1)]) == (0.0, 1000000.125)
    assert interval_of("mul", [(0.0, 1e-30), (1e-30, 1e-20)]) == (0.0, 0.0)
    assert interval_of("add", [(TINY, 1.0), (-TINY / 2, 1.0)])[0] == 0.0
    low, high = interval_of("div", [(1.0, 1.0), (3.0, 3.0)])
    assert low < 1 / 3 < high


def test_checking_imports_no_jax():
    code = (
        "import sys; from flowrl_core.programs.language import check_done;"
        "from flowrl_core.programs.language import lower; import flowrl_core.programs.tables;"
        "from flowrl_core.programs.registers import fill; from flowrl_core.programs.reference import evaluate;"
        "from flowrl_core.envs.corridor.vocabulary import CORRIDOR as C; lower(check_done('near.bench', C), C);"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
