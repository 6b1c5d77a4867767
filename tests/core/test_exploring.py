"""What a player has seen: the wrapper's record of cells against a set of cells kept by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowrl_core.envs.adapter import Adapter, Grid, make_adapter
from flowrl_core.envs.exploring import exploring

_MOVES = np.array([(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)])


def _walker(rows: int, columns: int, view: tuple[int, int], start: tuple[int, int]) -> Adapter:
    """Return a world in which the state is the player's position and actions move it, borders stop it."""

    def step(key, state, action):
        del key
        after = jnp.clip(state + jnp.asarray(_MOVES)[action], 0, jnp.array([rows - 1, columns - 1]))
        return jnp.zeros(1), after, jnp.bool_(False)

    return Adapter(
        make_adapter("corridor").vocabulary,
        num_flags=0,
        reset=lambda key: (jnp.zeros(1), jnp.array(start)),
        step=step,
        read=lambda obs, state: state.astype(jnp.float32),
        sight=lambda obs, state, target: jnp.zeros(6),
        place=lambda state, values: (jnp.zeros(1), state + 1),
        grid=Grid(rows, columns, *view, lambda state: (state[0], state[1])),
    )


def _view(rows: int, columns: int, view: tuple[int, int], at: np.ndarray) -> set[tuple[int, int]]:
    half = (view[0] // 2, view[1] // 2)
    cells = {(at[0] + dy, at[1] + dx) for dy in range(-half[0], half[0] + 1) for dx in range(-half[1], half[1] + 1)}
    return {(y, x) for y, x in cells if 0 <= y < rows and 0 <= x < columns}


@pytest.mark.parametrize(
    ("rows", "columns", "view", "start"),
    [(64, 64, (7, 9), (32, 32)), (9, 33, (3, 5), (0, 0)), (40, 70, (5, 7), (39, 69)), (5, 5, (7, 9), (2, 2))],
)
def test_each_cell_is_news_once_and_only_inside_the_world(rows, columns, view, start) -> None:
    adapter = exploring(_walker(rows, columns, view, start))
    step = jax.jit(adapter.step)
    _, explorer = adapter.reset(jax.random.PRNGKey(0))
    seen = _view(rows, columns, view, np.array(start))
    draw = np.random.default_rng(rows)
    direction = 1
    for _ in range(150):
        direction = int(draw.integers(5)) if draw.random() < 0.2 else direction
        _, explorer, _ = step(jax.random.PRNGKey(0), explorer, jnp.int32(direction))
        now = _view(rows, columns, view, np.asarray(explorer.state))
        assert int(adapter.news(explorer)) == len(now - seen)
        seen |= now
    bits = np.asarray(explorer.seen)
    found = {(y, x) for y in range(rows) for x in range(columns) if bits[y, x // 32] >> (x % 32) & 1}
    assert found == seen and int(jax.lax.population_count(explorer.seen).sum()) == len(seen)
    if len(seen) < rows * columns:
        assert len(seen) > view[0] * view[1]


def test_a_new_world_has_no_news_and_setting_fluents_keeps_what_was_seen() -> None:
    adapter = exploring(_walker(64, 64, (7, 9), (32, 32)))
    _, explorer = adapter.reset(jax.random.PRNGKey(0))
    assert int(adapter.news(explorer)) == 0 and int(jax.lax.population_count(explorer.seen).sum()) == 63
    _, placed = adapter.place(explorer, {})
    assert (placed.seen == explorer.seen).all() and (placed.state == explorer.state + 1).all()


def test_an_environment_without_a_grid_stays_as_it_is() -> None:
    adapter = make_adapter("corridor")
    assert adapter.grid is None and exploring(adapter) is adapter
