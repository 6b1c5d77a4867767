"""Thousands of random programs: the accepted ones are finite, inside their proven intervals, equal in JAX and numpy."""

import random
import time

import jax
import numpy as np
import pytest

from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.envs.evaluator import evaluate
from flowrl_core.errors import ProgramError
from flowrl_core.programs import reference
from flowrl_core.programs.expressions import Expression
from flowrl_core.programs.language import Checked, check_done, check_reward, lower
from flowrl_core.programs.registers import registers_of
from flowrl_core.programs.tables import stack

NUM_PROGRAMS = 6000
ROWS_EACH = 16
CHUNK = 256

LAYOUT = registers_of(CRAFTAX_CLASSIC)
NUMBERS = [name for name, slot in LAYOUT.slots.items() if not slot.is_truth]
TRUTHS = [name for name, slot in LAYOUT.slots.items() if slot.is_truth]


def random_number(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.15:
        return rng.choice([*rng.choices(NUMBERS, k=3), "n", f"{rng.choice([0.1, 0.001, 3, 7.5, 10, 1000, 0, 1])}"])
    number, truth = (lambda: random_number(rng, depth - 1)), (lambda: random_truth(rng, depth - 1))
    match rng.randrange(12):
        case 0 | 1 | 2 | 3:
            return f"({number()} {rng.choice('+-*')} {number()})"
        case 4:
            return f"({number()} / {rng.choice([f'max({number()}, 0.5)', f'(1 + abs({number()}))', 'n', number()])})"
        case 5:
            return f"({number()} if {truth()} else {number()})"
        case 6:
            return f"{rng.choice(['min', 'max'])}({number()}, {number()})"
        case 7:
            return f"clip({number()}, {number()}, {number()})"
        case 8:
            return f"sqrt({rng.choice([f'abs({number()})', f'max({number()}, 0)', number()])})"
        case 9:
            return f"{rng.choice(['abs', 'tanh'])}({number()})"
        case 10:
            shared = number()
            return f"({shared} {rng.choice('*-')} {shared})"
    return f"(-{number()})"


def random_truth(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(TRUTHS)
    number, truth = (lambda: random_number(rng, depth - 1)), (lambda: random_truth(rng, depth - 1))
    compare = [">=", ">", "<=", "<", "==", "!="]
    match rng.randrange(8):
        case 0 | 1 | 2:
            return f"({number()} {rng.choice(compare)} {number()})"
        case 3:
            return f"({number()} {rng.choice(compare)} {number()} {rng.choice(compare)} {number()})"
        case 4:
            return f"(not {truth()})"
        case 5:
            return f"({truth()} if {truth()} else {truth()})"
    return f"({truth()} {rng.choice(['and', 'or'])} {truth()})"


def random_rows(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """Register rows f32[rows, R] of whole numbers inside their ranges, a third of them at an end of the range."""
    registers = np.zeros((num_rows, LAYOUT.size), np.float32)
    for slot in LAYOUT.slots.values():
        low, high = (int(end) for end in slot.interval)
        inside = rng.integers(low, high + 1, num_rows)
        kind = rng.integers(0, 6, num_rows)
        registers[:, slot.index] = np.where(kind == 0, low, np.where(kind == 1, high, inside))
    return registers


def nodes(expression: Expression) -> set[Expression]:
    found: set[Expression] = set()
    todo = [expression]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(node.args)
    return found


def breaks_where_tanh_is_inexact(expression: Expression) -> bool:
    """A jump (comparison) or a quotient over tanh could magnify its last place without bound."""
    jumps = [n for n in nodes(expression) if n.op in ("ge", "gt", "eq", "div", "sqrt")]
    return any(inner.op == "tanh" for jump in jumps for inner in nodes(jump))


@pytest.fixture(scope="module")
def accepted() -> list[Checked]:
    rng = random.Random(20240607)
    found = []
    for i in range(NUM_PROGRAMS):
        depth = rng.randrange(1, 5)
        try:
            if i % 2:
                found.append(check_reward(random_number(rng, depth), CRAFTAX_CLASSIC))
            else:
                found.append(check_done(random_truth(rng, depth), CRAFTAX_CLASSIC))
        except ProgramError as refused:
            assert refused.code != "syntax"
            assert refused.remedy
    return found


def test_a_fair_part_of_random_programs_is_accepted(accepted):
    assert len(accepted) > NUM_PROGRAMS / 4
    operations = {node.op for checked in accepted for node in nodes(checked.expression)}
    assert len(operations) == 18


def test_accepted_programs_are_finite_bounded_and_equal_in_jax_and_numpy(accepted):
    rng = np.random.default_rng(7)
    run = jax.jit(lambda *args: evaluate(*args))  # JAX counts for all tests what is compiled of one function
    step = np.repeat(np.arange(CHUNK), ROWS_EACH)
    num_exact = 0
    for first in range(0, len(accepted), CHUNK):
        chunk = accepted[first : first + CHUNK]
        registers = random_rows(rng, CHUNK * ROWS_EACH)
        tables = stack([lower(checked, CRAFTAX_CLASSIC) for checked in chunk], CHUNK)
        found = np.asarray(run(tables, step, registers)).reshape(CHUNK, ROWS_EACH)
        for checked, got, rows in zip(chunk, found, registers.reshape(CHUNK, ROWS_EACH, -1), strict=False):
            expected = reference.evaluate(checked.expression, rows, LAYOUT)
            assert expected.dtype == np.float32
            for values in (got, expected):
                assert np.isfinite(values).all(), checked.text
                assert (values >= checked.interval[0]).all(), checked.text
                assert (values <= checked.interval[1]).all(), checked.text
            if not any(node.op == "tanh" for node in nodes(checked.expression)):
                num_exact += 1
                np.testing.assert_array_equal(got, expected, checked.text)
            elif not breaks_where_tanh_is_inexact(checked.expression):
                largest = max(abs(end) for node in nodes(checked.expression) for end in node.interval)
                np.testing.assert_allclose(
                    got, expected, rtol=1e-6, atol=1e-6 * max(1.0, largest), err_msg=checked.text
                )
    assert num_exact > len(accepted) / 2
    assert run._cache_size() == 1


def test_every_part_of_an_accepted_program_is_inside_its_own_interval(accepted):
    registers = random_rows(np.random.default_rng(8), 64)
    for checked in accepted[::5]:
        for node in nodes(checked.expression):
            values = reference.evaluate(node, registers, LAYOUT)
            assert node.interval[0] <= values.min() and values.max() <= node.interval[1], checked.text


def test_what_the_checker_calls_possible_is_possible_where_all_values_can_be_tried(accepted):
    for checked in accepted:
        ranges = {name: LAYOUT.slots[name].interval for name in checked.fluents}
        values = reference.every_value(checked.expression, ranges, limit=2000)
        if values is not None:
            assert values.max() > 0
            assert values.min() < values.max()


def test_any_soup_of_tokens_is_refused_or_accepted_in_milliseconds():
    rng = random.Random(3)
    words = [
        *"()+-*/,.<>=n1",
        "inv.wood",
        "min(",
        "max(",
        "((",
        "not ",
        " if ",
        " else ",
        " and ",
        "==",
        "1e5",
        "0x",
        "_",
        "\n",
    ]
    slowest = 0.0
    for _ in range(2000):
        few = rng.sample(words, rng.randrange(1, 6))
        text = "".join(rng.choices(few, k=rng.randrange(1, 400)))[:1000]
        start = time.thread_time()
        try:
            check_reward(text, CRAFTAX_CLASSIC)
        except ProgramError as refused:
            assert refused.remedy
        slowest = max(slowest, time.thread_time() - start)
    assert slowest < 0.1


def test_tanh_in_jax_is_within_the_slack_of_the_intervals():
    x = np.concatenate([np.linspace(-20, 20, 20001), np.geomspace(1e-12, 10, 2001)]).astype(np.float32)
    exact = np.tanh(x.astype(np.float64))
    np.testing.assert_allclose(np.asarray(jax.jit(jax.numpy.tanh)(x)), exact, rtol=2**-21, atol=0)
    np.testing.assert_allclose(np.tanh(x), exact, rtol=2**-21, atol=0)
