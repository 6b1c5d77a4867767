"""The Craftax-Classic adapter against the game's own state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic.constants import BlockType
from craftax.craftax_classic.game_logic import is_near_block

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC

NAMES = [fluent.name for fluent in CRAFTAX_CLASSIC.fluents]


@pytest.fixture(scope="module")
def adapter():
    return make_adapter("craftax-classic")


@pytest.fixture(scope="module")
def world(adapter):
    obs, state = jax.jit(adapter.reset)(jax.random.PRNGKey(3))
    return obs, state


@pytest.fixture(scope="module")
def observe():
    from craftax.craftax_classic.renderer import render_craftax_symbolic

    return jax.jit(render_craftax_symbolic)


def fluents(adapter, obs, state):
    return dict(zip(NAMES, np.asarray(adapter.read(obs, state)), strict=True))


def with_block(state, dy, dx, block):
    y, x = np.asarray(state.player_position)
    return state.replace(map=state.map.at[y + dy, x + dx].set(BlockType[block].value))


def cleared(state):
    y, x = (int(v) for v in state.player_position)
    return state.replace(map=state.map.at[max(y - 5, 0) : y + 6, max(x - 6, 0) : x + 7].set(BlockType.GRASS.value))


def test_a_new_world_has_full_vitals_and_nothing_else(adapter, world):
    values = fluents(adapter, *world)
    assert [values[name] for name in ("health", "food", "drink", "energy")] == [9, 9, 9, 9]
    assert all(value == 0 for name, value in values.items() if name.startswith(("inv.", "ach.")))


def test_the_view_is_made_of_flags_whatever_is_in_it(adapter, world, observe):
    """They are stored in one byte each: a number that is neither 0 nor 1 would be lost."""
    rng, (_, state) = np.random.default_rng(0), world
    seen = []
    for _ in range(8):
        everything = state.replace(map=jnp.asarray(rng.integers(0, len(BlockType), state.map.shape), state.map.dtype))
        for kind in ("zombies", "cows", "skeletons", "arrows"):
            mobs = getattr(state, kind)
            beside = state.player_position + rng.integers(-1, 2, mobs.position.shape)
            mobs = mobs.replace(position=beside.astype(mobs.position.dtype), mask=jnp.ones_like(mobs.mask))
            everything = everything.replace(**{kind: mobs})
        seen.append(np.asarray(observe(everything))[: adapter.num_flags])
    assert adapter.num_flags == 7 * 9 * 21
    np.testing.assert_array_equal(np.unique(seen), [0, 1])
    assert np.reshape(seen, (8, 63, 21)).max((0, 1))[1:].all(), "blocks and creatures of every kind were in view"


def test_every_item_and_achievement_is_read_from_its_own_place(adapter, world):
    obs, state = world
    items = [name.removeprefix("inv.") for name in NAMES if name.startswith("inv.")]
    filled = state.replace(inventory=state.inventory.replace(**{item: k + 1 for k, item in enumerate(items)}))
    values = fluents(adapter, obs, filled)
    assert [values[f"inv.{item}"] for item in items] == list(range(1, len(items) + 1))
    for k in (0, 9, 21):
        one = fluents(adapter, obs, state.replace(achievements=state.achievements.at[k].set(True)))
        raised = [name for name, value in one.items() if name.startswith("ach.") and value]
        assert raised == [name for name in NAMES if name.startswith("ach.")][k : k + 1]


@pytest.mark.parametrize(("dy", "dx"), [(0, 1), (-1, 1), (1, -1), (2, 0), (0, -2), (3, 4)])
def test_near_and_distance_agree_with_the_game(adapter, world, observe, dy, dx):
    state = with_block(cleared(world[1]), dy, dx, "CRAFTING_TABLE")
    values = fluents(adapter, observe(state), state)
    assert values["near.crafting_table"] == bool(is_near_block(state, BlockType.CRAFTING_TABLE.value))
    assert values["dist.crafting_table"] == abs(dy) + abs(dx)


def test_a_block_out_of_view_has_the_distance_of_none(adapter, world, observe):
    state = with_block(cleared(world[1]), 0, 5, "DIAMOND")
    values = fluents(adapter, observe(state), state)
    assert values["dist.diamond"] == CRAFTAX_CLASSIC.fluents[NAMES.index("dist.diamond")].high == 8


@pytest.mark.parametrize(("dy", "dx"), [(0, 1), (-2, 3), (3, -4)])
def test_target_features_point_at_the_nearest_block(adapter, world, observe, dy, dx):
    state = with_block(cleared(world[1]), dy, dx, "TREE")
    features = adapter.sight(observe(state), state, jnp.int32(CRAFTAX_CLASSIC.targets.index("tree")))
    adjacent = abs(dy) + abs(dx) <= 1
    np.testing.assert_allclose(features, [np.sign(dx), np.sign(dy), dx / 4, dy / 3, 1, adjacent], rtol=1e-6)


@pytest.mark.parametrize("target", ["diamond", None])
def test_target_features_are_zero_when_there_is_nothing_to_see(adapter, world, observe, target):
    state = cleared(world[1])
    index = -1 if target is None else CRAFTAX_CLASSIC.targets.index(target)
    np.testing.assert_array_equal(adapter.sight(observe(state), state, jnp.int32(index)), 0)
