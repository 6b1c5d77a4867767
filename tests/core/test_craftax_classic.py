"""The Craftax-Classic adapter against the game's own state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic.constants import BlockType
from craftax.craftax_classic.game_logic import is_near_block

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.errors import InputError

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


@pytest.mark.long
@pytest.mark.parametrize(("move", "dy", "dx"), [("left", 0, -1), ("right", 0, 1), ("up", -1, 0), ("down", 1, 0)])
def test_the_deadly_action_is_the_move_into_lava_and_the_game_agrees(adapter, world, observe, move, dy, dx):
    state = with_block(cleared(world[1]), dy, dx, "LAVA")
    deadly = np.asarray(adapter.deadly(observe(state), state))
    assert [CRAFTAX_CLASSIC.actions[k] for k in np.nonzero(deadly)[0]] == [move]
    step = jax.jit(adapter.step)
    for k, action in enumerate(CRAFTAX_CLASSIC.actions[:6]):
        assert bool(step(jax.random.PRNGKey(0), state, jnp.int32(k))[2]) == (action == move)


def mirrored(state, across, upright):
    """The world mirrored about the player, left to right and top to bottom, in the part that is in view."""
    y, x = (int(v) for v in state.player_position)
    view = (slice(y - 3, y + 4), slice(x - 4, x + 5))
    turn = (slice(None, None, -1 if upright else 1), slice(None, None, -1 if across else 1))
    facing = {1: 2, 2: 1}[int(state.player_direction)] if across else int(state.player_direction)
    return state.replace(map=state.map.at[view].set(state.map[view][turn]), player_direction=jnp.int32(facing))


@pytest.mark.parametrize(("dy", "dx"), [(0, 2), (2, 0), (1, 3), (3, 2), (None, None)])
def test_worlds_that_are_mirror_images_look_the_same_in_the_canonical_view(adapter, world, observe, dy, dx):
    """A player who looks right, at a world with a target somewhere and stones that are nowhere symmetric."""
    state = cleared(world[1]).replace(player_direction=jnp.int32(2))
    for at in ((-2, -1), (1, 2), (3, -4)):
        state = with_block(state, *at, "STONE")
    state = state if dx is None else with_block(state, dy, dx, "COAL")
    canonical, target = jax.jit(adapter.canonical), jnp.int32(CRAFTAX_CLASSIC.targets.index("coal"))

    def view(across, upright):
        obs = observe(turned := mirrored(state, across, upright))
        return obs, canonical(obs, adapter.sight(obs, turned, target))

    plain, (obs, sight, actions) = view(False, False)
    np.testing.assert_array_equal(obs, plain)
    np.testing.assert_array_equal(actions, np.arange(len(actions)))
    for across, upright in ((True, False), (False, True), (True, True)):
        other, (mirrored_obs, mirrored_sight, mapped) = view(across, upright)
        assert not np.array_equal(other, plain)
        # Where nothing says which way is down, worlds turned upside down remain two.
        if not upright or (dy or 0) != 0:
            np.testing.assert_array_equal(mirrored_obs, obs)
            np.testing.assert_array_equal(mirrored_sight, sight)
            moves = [*((2, 1) if across else (1, 2)), *((4, 3) if upright else (3, 4))]
            np.testing.assert_array_equal(mapped, [0, *moves, *range(5, len(mapped))])
    assert (sight[:2] >= 0).all()


def test_an_enemy_is_the_nearest_zombie_or_skeleton(adapter, world):
    target = CRAFTAX_CLASSIC.targets.index
    _, state = world
    for values in ({"dist.zombie": 1, "dist.skeleton": 3}, {"dist.zombie": 4, "dist.skeleton": 2}, {}):
        placed = adapter.place(cleared(state), {"dist.cow": 8, "dist.zombie": 8, "dist.skeleton": 8} | values)
        kind = min(values, key=values.get).removeprefix("dist.") if values else "zombie"
        seen = [np.asarray(adapter.sight(*placed, jnp.int32(target(name)))) for name in ("enemy", kind)]
        np.testing.assert_array_equal(*seen)
        assert seen[0].any() == bool(values)


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


def placed(adapter, state, **values):
    """The state with the fluents set (`dist_tree` for dist.tree), and what is read then."""
    named = {
        name.replace("_", ".", 1) if name.startswith(("dist_", "near_")) else name: v for name, v in values.items()
    }
    obs, after = adapter.place(state, named)
    return after, fluents(adapter, obs, after)


@pytest.mark.long
@pytest.mark.parametrize("corner", [None, (0, 0), (63, 1)])
def test_whatever_is_set_together_is_read_together_or_refused(adapter, world, corner):
    state = world[1] if corner is None else world[1].replace(player_position=jnp.array(corner, jnp.int32))
    read, draw, count = jax.jit(adapter.read), np.random.default_rng(0), 0
    for _ in range(60):
        chosen = [fluent for fluent in CRAFTAX_CLASSIC.fluents if draw.random() < 0.3]
        wanted = {fluent.name: int(draw.integers(fluent.low, fluent.high + 1)) for fluent in chosen}
        try:
            obs, after = adapter.place(state, wanted)
        except InputError as exc:
            assert exc.field in wanted
            continue
        values = dict(zip(NAMES, np.asarray(read(obs, after)), strict=True))
        assert {name: values[name] for name in wanted} == wanted
        count += 1
    assert count > 10


def test_a_block_is_put_before_the_player_and_what_was_nearer_becomes_sand(adapter, world):
    state = with_block(cleared(world[1]), 0, 1, "TREE").replace(player_direction=jnp.int32(3))
    after, values = placed(adapter, state, dist_tree=2, dist_iron=1)
    y, x = np.asarray(state.player_position)
    assert after.map[y, x + 1] == BlockType.SAND.value
    assert after.map[y - 1, x] == BlockType.IRON.value, "the player looks up"
    assert values["dist.tree"] == 2


def test_a_table_is_near_where_the_game_takes_it_to_be(adapter, world):
    for distance, near in ((1, True), (2, True), (2, False), (5, False)):
        after, _ = placed(adapter, cleared(world[1]), dist_crafting_table=distance, near_crafting_table=near)
        assert bool(is_near_block(after, BlockType.CRAFTING_TABLE.value)) == near
    with pytest.raises(InputError, match=r"near\.crafting_table: cannot be 1 here: dist\.crafting_table is to be 5"):
        placed(adapter, world[1], dist_crafting_table=5, near_crafting_table=1)


def test_a_plant_that_is_put_grows_and_a_creature_is_on_the_games_map_of_them(adapter, world):
    after, _ = placed(adapter, cleared(world[1]), dist_plant=1, dist_ripe_plant=2, dist_zombie=3)
    for block in (BlockType.PLANT, BlockType.RIPE_PLANT):
        (at,) = np.argwhere(np.asarray(after.map) == block.value)
        (slot,) = np.flatnonzero((np.asarray(after.growing_plants_positions) == at).all(axis=1))
        assert after.growing_plants_mask[slot]
        assert after.growing_plants_age[slot] == (600 if block is BlockType.RIPE_PLANT else 0)
    alive = np.asarray(after.zombies.position)[np.asarray(after.zombies.mask)]
    assert np.asarray(after.mob_map)[tuple(alive.T)].all()
    gone, _ = placed(adapter, after, dist_plant=8)
    assert np.asarray(gone.growing_plants_mask).sum() == 1


def test_a_creature_replaces_another_of_its_kind_where_all_are_there(adapter, world):
    cows = world[1].cows.replace(mask=jnp.ones_like(world[1].cows.mask))
    after, values = placed(adapter, cleared(world[1].replace(cows=cows)), dist_cow=2)
    assert values["dist.cow"] == 2 and np.asarray(after.cows.mask).sum() == len(cows.mask)
    assert np.asarray(after.cows.health)[np.asarray(after.cows.mask)].min() > 0


def test_nobody_stands_in_a_tree(adapter, world):
    with pytest.raises(InputError, match=r"dist\.tree: cannot be 0 here: the player would stand in it"):
        placed(adapter, world[1], dist_tree=0)


def test_five_kinds_do_not_fit_into_four_cells(adapter, world):
    with pytest.raises(InputError, match="no cell is left for it"):
        placed(adapter, world[1], dist_tree=1, dist_coal=1, dist_iron=1, dist_stone=1, dist_diamond=1)
