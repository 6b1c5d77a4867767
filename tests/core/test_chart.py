"""The compass: where an expert is told to look, and that it is told nothing that the player has not seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic.constants import BlockType

from flowrl_core.envs.adapter import Terrain, make_adapter
from flowrl_core.envs.chart import bearing, charted
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC

UNSEEN, FLOOR, ORE, WATER = range(4)
TOY = Terrain(
    size=(9, 11),
    view_size=(3, 5),
    position=lambda state: state,
    view=lambda obs: obs,
    targets=np.array([1 << ORE, 0], np.uint32),
    ground=np.array([1 << FLOOR, 1 << WATER], np.uint32),
)
WALKS = ("left", "left", "up", "up", "right", "do", "down", "left", "up", "up")


def told(cells, target=0, at=(4, 5)):
    """The bearing from a cell of a chart whose other cells were never seen; rounded."""
    chart = np.full((11, 15), 31, np.uint8)
    chart[1:-1, 2:-2] = UNSEEN
    for (row, column), code in cells.items():
        chart[row + 1, column + 2] = code
    return np.asarray(bearing(TOY, jnp.asarray(chart), jnp.array(at), jnp.int32(target))).tolist()


def test_it_points_to_the_nearest_remembered_target_however_near_unseen_ground_is():
    cells = {(4, 5): FLOOR, (1, 4): ORE, (8, 10): ORE}
    assert told(cells) == [-1, -1, -0.5, -2, 0, 0], "rows are clipped at twice half a view"
    assert told(cells | {(4, 6): ORE}) == [1, 0, 0.5, 0, 0, 0]


def test_it_points_to_the_nearest_unseen_cell_beside_ground_of_the_target():
    block = {(row, column): FLOOR for row in (3, 4, 5) for column in range(3, 8)}
    assert told(block) == [0, -1, 0, -2, 0, 0], "the nearest of many"
    assert told(block | {(2, column): WATER for column in range(3, 8)}) == [0, 1, 0, 2, 0, 0]
    assert told(block | {(3, 3): WATER}, target=1) == [-1, -1, -1, -2, 0, 0], "only beside water"


def test_it_says_nothing_where_nothing_is_left_to_look_at():
    everywhere = {(row, column): FLOOR for row in range(9) for column in range(11)}
    assert told(everywhere) == told({(4, 5): WATER}) == [0] * 6
    assert told(dict.fromkeys(everywhere, WATER) | {(0, 0): FLOOR}) == [0] * 6, "what is outside is not unseen"


@pytest.fixture(scope="module")
def classic():
    return charted(make_adapter("craftax-classic"))


@pytest.fixture(scope="module")
def walked(classic):
    """States of a walk, each with its observation, from a corner of the world, where the view sticks out of it."""
    obs, start = jax.jit(classic.reset)(jax.random.PRNGKey(3))
    inner = start.state.replace(player_position=jnp.array([2, 3], jnp.int32))
    step, states = jax.jit(classic.step), []
    state = start._replace(state=inner, chart=start.chart.at[3:-3, 4:-4].set(0))
    for turn, action in enumerate(WALKS * 2):
        obs, state, _ = step(jax.random.PRNGKey(turn), state, jnp.int32(CRAFTAX_CLASSIC.actions.index(action)))
        states.append((obs, state))
    return states


@pytest.mark.long
def test_the_chart_holds_what_was_in_view_and_nothing_else(walked):
    seen = np.zeros((64, 64), bool)
    for _, state in walked:
        y, x = (int(v) for v in state.state.player_position)
        seen[max(y - 3, 0) : y + 4, max(x - 4, 0) : x + 5] = True
        world, chart = np.asarray(state.state.map), np.asarray(state.chart)[3:-3, 4:-4]
        np.testing.assert_array_equal(chart != 0, seen)
        np.testing.assert_array_equal(chart[seen], world[seen])


@pytest.mark.long
def test_the_compass_knows_nothing_that_was_not_seen(classic, walked):
    """Whatever the rest of the world is made of, an expert is told the same."""
    sight = jax.jit(jax.vmap(classic.sight, in_axes=(None, None, 0)))
    targets = jnp.arange(-1, len(CRAFTAX_CLASSIC.targets))
    for obs, state in walked[::5]:
        unseen = np.asarray(state.chart)[3:-3, 4:-4] == 0
        said = np.asarray(sight(obs, state, targets))
        assert (said[0] == 0).all() and (said[1:, :2] != 0).any()
        for block in (BlockType.DIAMOND, BlockType.WATER, BlockType.GRASS):
            other = jnp.where(unseen, block.value, state.state.map)
            changed = state._replace(state=state.state.replace(map=other))
            np.testing.assert_array_equal(sight(obs, changed, targets), said)


@pytest.mark.long
def test_a_target_in_view_is_told_as_the_environment_tells_it(classic, walked):
    plain = make_adapter("craftax-classic")
    targets = jnp.arange(len(CRAFTAX_CLASSIC.targets))
    own, other = (jax.jit(jax.vmap(each.sight, in_axes=(None, None, 0))) for each in (plain, classic))
    found = 0
    for obs, state in walked:
        seen, said = np.asarray(own(obs, state.state, targets)), np.asarray(other(obs, state, targets))
        in_view = seen[:, 4] > 0.5
        found += in_view.sum()
        np.testing.assert_array_equal(said[in_view], seen[in_view])
        assert (said[~in_view, 4:] == 0).all()
    assert found
