"""Registers hold what their names say, and tables compute what their programs say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.envs.corridor.vocabulary import CORRIDOR
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.envs.evaluator import evaluate
from flowrl_core.errors import InputError, ProgramError
from flowrl_core.programs import reference
from flowrl_core.programs.language import check_done, check_reward, lower
from flowrl_core.programs.registers import Registers, fill, registers_of
from flowrl_core.programs.tables import CODES, NUM_INSTRUCTIONS, stack
from flowrl_core.vocabulary.model import Fluent, Vocabulary

TINY = Vocabulary(
    observation_size=1,
    env="tiny",
    fluents=(
        Fluent("inv.wood", "count", 0, 9),
        Fluent("ach.eat_cow", "flag", 0, 1),
        Fluent("near.table", "place", 0, 1),
        Fluent("health", "vital", 0, 9),
        Fluent("dist.tree", "distance", 0, 8),
    ),
    actions=("noop",),
    targets=(),
)


def row(xp=np, *, now=(3, 1, 1, 8, 2), prev=(1, 0, 0, 9, 5), start=(4, 0, 1, 9, 8), n=2):
    return fill(xp, xp.asarray(now), xp.asarray(prev), xp.asarray(start), xp.asarray(n), registers_of(TINY))


def value(text, registers, *, kind="reward", vocabulary=TINY):
    checked = (check_done if kind == "done" else check_reward)(text, vocabulary)
    table = jax.tree.map(lambda x: x[None], lower(checked, vocabulary))
    batch = jnp.asarray(registers)[None]
    found = evaluate(table, jnp.zeros(1, jnp.int32), batch)[0]
    assert found == pytest.approx(float(reference.evaluate(checked.expression, registers, registers_of(vocabulary))))
    return float(found)


def test_a_register_row_holds_now_delta_since_and_n():
    layout = Registers(TINY)
    assert layout.size == 16
    assert row().tolist() == [3, 1, 1, 8, 2, 2, 1, 1, -1, 3, -1, 1, 0, -1, -6, 2]
    names = ["inv.wood", "gained.wood", "since.wood", "ach.eat_cow", "new_ach.eat_cow", "d.health", "closer.tree", "n"]
    assert [row()[layout.index(name)] for name in names] == [3, 2, -1, 1, 1, -1, 3, 2]


def test_a_name_a_program_may_not_use_has_no_register():
    with pytest.raises(KeyError):
        Registers(TINY).index("gained.health")


def test_numpy_and_jax_fill_the_same_registers_with_any_leading_shape():
    rng = np.random.default_rng(0)
    layout = registers_of(CRAFTAX_CLASSIC)
    now, prev, start = rng.integers(0, 2, (3, 4, 5, layout.num_fluents))
    n = rng.integers(1, 10, (4, 5))
    expected = fill(np, now, prev, start, n, layout)
    assert expected.shape == (4, 5, layout.size)
    assert expected.dtype == np.float32
    filled = jax.jit(lambda *args: fill(jnp, *args, layout))(now, prev, start, n)
    np.testing.assert_array_equal(filled, expected)


def test_registers_stay_inside_the_declared_ranges_whatever_an_adapter_reads():
    layout = registers_of(TINY)
    filled = row(now=(99, 0, 0, -3, 44), prev=(-9, 1, 0, 9, 0), n=50)
    assert filled[layout.index("gained.wood")] == 9
    assert filled[layout.index("new_ach.eat_cow")] == 0
    assert filled[layout.index("d.health")] == -9
    assert filled[layout.index("closer.tree")] == -8
    assert filled[layout.index("n")] == 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gained.wood + 0.5 * d.health", 1.5),
        ("5 - inv.wood", 2),
        ("12 / n - 1", 5),
        ("inv.wood / n", 1.5),
        ("-d.health * 3", 3),
        ("2 * 3 + since.wood", 5),
        ("min(inv.wood, 2, n) + max(since.wood, 0)", 2),
        ("clip(health, 0, 5)", 5),
        ("abs(since.wood) + sqrt(inv.wood + 1)", 3),
        ("1 if near.table and new_ach.eat_cow else -1", 1),
        ("-1 if near.table else 1", -1),
        ("1 if near.table else 0", 1),
        ("0 if near.table else 1", 0),
        ("inv.wood if not near.table else closer.tree", 3),
        ("0.25 if 1 < n < inv.wood <= 3 < health != 2 else 0.5", 0.25),
        ("0.25 if 3 <= n or 8 == dist.tree else 0.5", 0.5),
        ("0.25 if 2 <= n and 8 != dist.tree and n < 3 else 0.5", 0.25),
        ("0.25 if (ach.eat_cow if n > 1 else near.table) else 0.5", 0.25),
    ],
)
def test_tables_compute_what_the_text_says(text, expected):
    assert value(text, row()) == pytest.approx(expected)


def test_tanh_is_the_hyperbolic_tangent():
    assert value("tanh(gained.wood / 4)", row()) == pytest.approx(np.tanh(0.5), rel=1e-6)


def test_what_a_device_may_flush_to_zero_is_zero_everywhere():
    items = ("wood", "stone", "coal", "iron", "diamond", "sapling", "wood_sword")
    product = " * ".join(f"inv.{item} * 0.000001" for item in items)
    ones, nines = np.full((2, registers_of(CRAFTAX_CLASSIC).size), [[1], [9]], np.float32)
    assert value(f"1 if {product} > 0 else 2", ones, vocabulary=CRAFTAX_CLASSIC) == 2
    assert value(f"1 if {product} > 0 else 2", nines, vocabulary=CRAFTAX_CLASSIC) == 1


def test_a_program_that_is_a_single_fluent_needs_no_operation():
    assert value("near.table", row(), kind="done") == 1
    assert value("near.table", row(now=(0, 0, 0, 0, 0)), kind="done") == 0


def test_each_environment_runs_the_program_of_its_own_step():
    texts = ["gained.wood", "d.health + 3", "10 * inv.wood"]
    tables = stack([lower(check_reward(text, TINY), TINY) for text in texts], 5)
    assert tables.op.shape == (5, NUM_INSTRUCTIONS)
    registers = np.stack([row(), row(), row(), row(now=(7, 0, 0, 9, 8)), row()])
    found = jax.jit(evaluate)(tables, jnp.array([0, 1, 2, 2, 4]), registers)
    assert found.tolist() == [2, 2, 30, 70, 30]


def test_a_new_program_compiles_nothing():
    run = jax.jit(lambda tables, step, registers: evaluate(tables, step, registers))
    step, registers = jnp.zeros(3, jnp.int32), jnp.asarray(np.stack([row()] * 3))
    results = []
    for text in ["gained.wood", "tanh(health) + sqrt(dist.tree) / n", "1 if near.table else d.health"]:
        results.append(run(stack([lower(check_reward(text, TINY), TINY)]), step, registers)[0])
    assert run._cache_size() == 1
    assert len({float(r) for r in results}) == 3


def test_equal_parts_are_computed_once():
    table = lower(check_reward("tanh(gained.wood) * tanh(gained.wood) + tanh(gained.wood)", TINY), TINY)
    assert int((table.op == CODES["tanh"]).sum()) == 1
    assert int((table.op != CODES["move"]).sum()) == 3


def test_a_program_longer_than_the_table_is_refused():
    checked = check_reward("gained.wood + 0.1 * d.health + 0.01 * closer.tree", TINY)
    assert lower(checked, TINY, 4).op.shape == (4,)
    with pytest.raises(ProgramError, match="too_large.*4 instructions; the maximum is 3"):
        lower(checked, TINY, 3)
    long = " + ".join(f"tanh(gained.wood * {i})" for i in range(2, 16))
    with pytest.raises(ProgramError, match="too_large"):
        check_reward(long, TINY)


def test_stacking_more_programs_than_steps_is_refused():
    table = lower(check_done("near.table", TINY), TINY)
    with pytest.raises(InputError, match="2 programs for 1 steps"):
        stack([table, table], 1)
    with pytest.raises(InputError):
        stack([])


def test_programs_of_every_shipped_vocabulary_lower():
    for vocabulary in (CRAFTAX_CLASSIC, CORRIDOR):
        place = next(f.name for f in vocabulary.fluents if f.kind == "place")
        assert lower(check_done(place, vocabulary), vocabulary).k.dtype == np.float32


COUNTERS = Vocabulary(
    env="counters",
    fluents=(
        Fluent("inv.wood", "count", 0, 9),
        Fluent("stored.wood", "count", 0, 20, most_gained=4),
        Fluent("blows", "total", 0, 99, is_hidden=True, most_gained=5),
        Fluent("inv.tool", "tier", 0, 3),
    ),
    actions=("noop",),
    targets=(),
    observation_size=1,
)


def test_the_changes_of_every_count_have_names_and_narrow_ranges():
    slots = registers_of(COUNTERS).slots
    changes = {name: slot.interval for name, slot in slots.items() if name.startswith(("gained.", "since."))}
    assert changes == {
        "gained.wood": (-9, 9), "since.wood": (-9, 9),
        "gained.stored.wood": (-20, 4), "since.stored.wood": (-20, 20),
        "gained.blows": (0, 5), "since.blows": (0, 99),
        "gained.tool": (-3, 3), "since.tool": (-3, 3),
    }  # fmt: skip
    assert [fluent.name for fluent in registers_of(COUNTERS).told(["gained.blows", "n", "blows", "since.wood"])] == [
        "blows",
        "inv.wood",
    ]


def test_registers_stay_in_their_ranges_whatever_an_adapter_reads():
    layout = registers_of(COUNTERS)
    rows = np.random.default_rng(0).integers(-50, 150, (3, 500, 4)).astype(np.float32)
    found = fill(np, *rows, np.ones(500), layout)
    np.testing.assert_array_equal(found, fill(jax.numpy, *rows, np.ones(500), layout))
    for name, slot in layout.slots.items():
        low, high = slot.interval
        assert low <= found[:, slot.index].min() and found[:, slot.index].max() <= high, name
    assert found[:, layout.index("gained.blows")].max() == 5 and found[:, layout.index("gained.blows")].min() == 0


def test_two_fluents_whose_changes_have_one_name_are_refused():
    twice = dataclasses.replace(COUNTERS, fluents=(*COUNTERS.fluents, Fluent("wood", "count", 0, 9)))
    with pytest.raises(ValueError, match=r"counters: gained\.wood names two things; rename wood"):
        registers_of(twice)


def test_a_vocabulary_is_told_apart_by_its_content():
    other = dataclasses.replace(TINY, fluents=TINY.fluents[1:])
    assert registers_of(other).size == 13
    assert registers_of(TINY).size == 16
