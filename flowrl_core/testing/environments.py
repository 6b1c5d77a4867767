"""The conformance test of environments: tests call `check_environment` for each, as can a package that adds one."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowrl_core.envs.adapter import Adapter, make_adapter
from flowrl_core.errors import InputError
from flowrl_core.programs.language import check_reward
from flowrl_core.proposals.recorded_transitions import load_transitions
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.planner import make_plan
from flowrl_core.vocabulary.catalogue import Environment, environment

__all__ = ["check_environment"]

_WORLDS, _STEPS = 8, 48
_VALUES = 16


def check_environment(name: str) -> None:
    """Check that the environment of that name does what FlowRL relies on.

    Its adapter is played with random actions in a few worlds, the values of every fluent (of a wide range, some) are
    set and read, and its knowledge base and recorded transitions are read. Takes about as long as compiling one step of
    the environment.

    Raises:
        AssertionError: it does not; the message says what is wrong.
        InputError: there is no such environment.
    """
    entry = environment(name)
    adapter = make_adapter(name)
    assert adapter.vocabulary == entry.vocabulary, "the adapter has another vocabulary than the catalogue"
    for kind in ("actions", "targets"):
        assert len(set(getattr(entry.vocabulary, kind))) == len(getattr(entry.vocabulary, kind)), f"{kind} twice"
    assert set(entry.vocabulary.basic_actions) <= set(entry.vocabulary.actions), "a basic action is none of the actions"
    for group, kinds in entry.vocabulary.groups:
        assert group in entry.vocabulary.targets, f"the group {group} is none of the targets"
        assert set(kinds) <= set(entry.vocabulary.targets), f"{group}: a kind is none of the targets"
    if entry.vocabulary.shaping:
        check_reward(entry.vocabulary.shaping, entry.vocabulary)
    for package in entry.packages:
        assert list(importlib.metadata.Distribution.discover(name=package)), f"packages: {package} is not installed"
    obs, state = _check_play(adapter)
    _check_places(adapter, obs, state)
    _check_picture(adapter, state)
    _check_knowledge(entry)
    _check_transitions(entry)


def _check_play(adapter: Adapter) -> tuple[jax.Array, Any]:
    """Check shapes, types, ranges, sight and determinism (same keys, same results) in worlds played at random.

    Returns:
        One world in its initial state.
    """
    targets = jnp.arange(-1, len(adapter.vocabulary.targets))

    @jax.jit
    @jax.vmap
    def begin(key: jax.Array) -> tuple[Any, ...]:
        obs, state = adapter.reset(key)
        return obs, state, adapter.read(obs, state), jax.vmap(lambda t: adapter.sight(obs, state, t))(targets)

    @jax.jit
    @jax.vmap
    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, ...]:
        obs, state, is_dead = adapter.step(key, state, action)
        seen = jax.vmap(lambda t: adapter.sight(obs, state, t))(targets)
        return obs, state, adapter.read(obs, state), seen, is_dead

    def described(state: Any) -> Any:
        return jax.tree.structure(state), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]

    keys = jax.random.split(jax.random.PRNGKey(0), _WORLDS)
    first, again = begin(keys), begin(keys)
    _assert_equal(first, again, "reset gives another world for the same key")
    obs, state, row, seen = first
    began, alive = described(state), np.ones(_WORLDS, bool)
    draw = np.random.default_rng(0)
    for t in range(_STEPS):
        assert obs.shape == (_WORLDS, adapter.observation_size) and obs.dtype == jnp.float32, "observation: not f32[D]"
        flags = np.asarray(obs)[:, : adapter.num_flags]
        assert np.isin(flags, (0, 1)).all(), "num_flags: the observation's first entries are not all 0 or 1"
        assert np.isfinite(np.asarray(obs)).all(), "observation: not finite"
        _check_row(adapter, np.asarray(row)[alive])
        if t == 0:
            _check_new(adapter, np.asarray(row))
        _check_sight(adapter, np.asarray(row)[alive], np.asarray(seen)[alive])
        if t == _STEPS - 1:
            _check_canonical(adapter, obs, seen)
            _check_terrain(adapter, obs, state, np.asarray(seen))
        actions = jnp.asarray(draw.integers(adapter.num_actions, size=_WORLDS), jnp.int32)
        moving = (jax.random.split(jax.random.PRNGKey(t), _WORLDS), state, actions)
        after = step(*moving)
        if t == 0:
            _assert_equal(after, step(*moving), "step gives another state for the same key, state and action")
        _check_change(adapter, np.asarray(row)[alive], np.asarray(after[2])[alive])
        obs, state, row, seen, is_dead = after
        assert described(state) == began, "step: the state has other shapes or types than after reset"
        assert is_dead.shape == (_WORLDS,) and is_dead.dtype == bool, "step: is_dead is not one truth value"
        alive &= ~np.asarray(is_dead)
    obs, state, *_ = jax.tree.map(lambda leaf: leaf[0], first)
    return obs, state


def _check_row(adapter: Adapter, rows: np.ndarray) -> None:
    fluents = adapter.vocabulary.fluents
    assert rows.shape[1:] == (len(fluents),) and rows.dtype == "float32", "read: not f32[F]"
    for fluent, values in zip(fluents, rows.T, strict=True):
        is_fine = ((values >= fluent.low) & (values <= fluent.high) & (values == values.round())).all()
        assert is_fine, f"read: {fluent.name} is {values}, not whole numbers from {fluent.low} to {fluent.high}"


def _check_new(adapter: Adapter, rows: np.ndarray) -> None:
    for fluent, values in zip(adapter.vocabulary.fluents, rows.T, strict=True):
        if fluent.kind in ("count", "total", "tier", "flag"):
            assert (values == fluent.low).all(), f"reset: {fluent.name} is {values} in new worlds, not {fluent.low}"


def _check_change(adapter: Adapter, before: np.ndarray, after: np.ndarray) -> None:
    """Args: rows f32[B, F] before and after one step."""
    for fluent, rise in zip(adapter.vocabulary.fluents, (after - before).T, strict=True):
        assert fluent.kind != "total" or (rise >= 0).all(), f"step: {fluent.name} is a total and falls by {-rise.min()}"
        if fluent.most_gained is not None:
            message = f"step: {fluent.name} rises by {rise.max(initial=0)}, more than {fluent.most_gained}"
            assert rise.max(initial=0) <= fluent.most_gained, message


def _check_sight(adapter: Adapter, rows: np.ndarray, seen: np.ndarray) -> None:
    """Args: rows f32[B, F] and what is seen of no target and of each target, f32[B, 1 + T, 6]."""
    assert seen.shape[2:] == (6,) and seen.dtype == "float32", "sight: not f32[6]"
    assert not seen[:, 0].any(), "sight: not all zeros for the target -1"
    index = {fluent.name: i for i, fluent in enumerate(adapter.vocabulary.fluents)}
    for target, features in zip(adapter.vocabulary.targets, np.moveaxis(seen[:, 1:], 1, 0), strict=True):
        signs, offsets, is_seen, is_adjacent = features[:, :2], features[:, 2:4], features[:, 4], features[:, 5]
        assert (signs == np.sign(offsets)).all(), f"sight: the signs of {target} are not those of its offsets"
        assert np.isin(features[:, 4:], (0, 1)).all(), f"sight: {target} is neither in view nor out of view"
        assert not features[is_seen == 0].any(), f"sight: {target} is out of view, and not all is zero"
        if (at := index.get(f"dist.{target}")) is not None:
            highest = adapter.vocabulary.fluents[at].high
            message = f"sight and dist.{target} disagree"
            assert (is_seen[rows[:, at] < highest] == 1).all(), message
            assert ((is_adjacent == 1) == (is_seen == 1) & (rows[:, at] <= 1)).all(), message
    for group, kinds in adapter.vocabulary.groups:
        views = [seen[:, 1 + adapter.vocabulary.targets.index(name), 4] for name in (group, *kinds)]
        assert (views[0] == np.max(views[1:], axis=0)).all(), f"sight: {group} is not in view when one of its kinds is"


def _check_canonical(adapter: Adapter, obs: jax.Array, seen: jax.Array) -> None:
    """Args: observations f32[B, D] and what is seen of no target and of each target, f32[B, 1 + T, 6]."""
    if adapter.canonical is None:
        return
    turn = jax.jit(jax.vmap(jax.vmap(adapter.canonical, in_axes=(None, 0))))
    views, sights, actions = turn(obs, seen)
    assert views.shape == (*seen.shape[:2], obs.shape[1]) and views.dtype == obs.dtype, "canonical: not f32[D]"
    assert np.isin(np.asarray(views)[..., : adapter.num_flags], (0, 1)).all(), "canonical: flags are not 0 or 1"
    assert (sights[..., 4:] == seen[..., 4:]).all(), "canonical: a target is in view or adjacent in one view alone"
    every = np.arange(adapter.num_actions)
    assert (np.sort(actions, axis=-1) == every).all(), "canonical: not each of the environment's actions once"
    again = jax.jit(jax.vmap(jax.vmap(adapter.canonical)))(views, sights)
    _assert_equal(again, (views, sights, jnp.broadcast_to(every, actions.shape)), "canonical: not the same view twice")


def _check_terrain(adapter: Adapter, obs: jax.Array, state: Any, seen: np.ndarray) -> None:
    """Args: as those of `_check_canonical`, and states with leaves [B, ...]."""
    terrain = adapter.terrain
    if terrain is None:
        return
    for name in ("targets", "ground"):
        codes = getattr(terrain, name)
        is_fine = codes.shape == (len(adapter.vocabulary.targets),) and codes.dtype == "uint32"
        assert is_fine, f"terrain: {name} is not u32[targets]"
    views, positions = np.asarray(jax.vmap(terrain.view)(obs)), np.asarray(jax.vmap(terrain.position)(state))
    assert views.shape[1:] == terrain.view_size, f"terrain: the view is {views.shape[1:]}, not {terrain.view_size}"
    assert all(side % 2 for side in terrain.view_size), "terrain: the view has no middle"
    assert ((views >= 1) & (views <= 30)).all(), "terrain: a cell in view has no code from 1 to 30"
    assert ((positions >= 0) & (positions < terrain.size)).all(), "terrain: the player is outside the world"
    codes = (1 << views.reshape(len(views), -1).astype(np.uint32)).astype(np.uint32)
    for number, target in enumerate(adapter.vocabulary.targets):
        is_there = (codes & terrain.targets[number]).any(1)
        assert seen[is_there, 1 + number, 4].all(), f"terrain: {target} is in view, and sight says that it is not"


def _check_places(adapter: Adapter, obs: jax.Array, state: Any) -> None:
    """Check that every value of every fluent, and many at once, reads back as set; the fluent is named if not."""
    read = jax.jit(adapter.read)
    fluents = adapter.vocabulary.fluents
    names = [fluent.name for fluent in fluents]
    free = [fluent for fluent in fluents if fluent.kind not in ("place", "distance", "level")]
    hidden = {fluent.name for fluent in fluents if fluent.is_hidden}
    before = dict(zip(names, np.asarray(read(obs, state)), strict=True))

    def place(values: Mapping[str, float]) -> bool:
        try:
            seen, placed = adapter.place(state, values)
        except InputError as exc:
            assert exc.field in values, f"place: the error of {dict(values)} names {exc.field}"
            return False
        kinds = [[(np.shape(x), np.asarray(x).dtype) for x in jax.tree.leaves(one)] for one in (state, placed)]
        assert kinds[0] == kinds[1], f"place: with {dict(values)} the state has other shapes or types"
        assert np.shape(seen) == obs.shape and np.asarray(seen).dtype == obs.dtype, "place: another observation"
        row = dict(zip(names, np.asarray(read(seen, placed)), strict=True))
        wrong = {name: float(row[name]) for name, value in values.items() if row[name] != value}
        assert not wrong, f"place: {wrong} is read where {dict(values)} was set"
        moved = [f.name for f in free if f.name not in values and row[f.name] != before[f.name]]
        assert not moved, f"place: setting {dict(values)} changed {', '.join(moved)}"
        if hidden.issuperset(values):
            assert np.array_equal(seen, obs), f"observation: it shows {', '.join(values)}, which is hidden"
        return True

    for fluent in fluents:
        values = {*range(fluent.low, min(fluent.high, fluent.low + _VALUES) + 1), fluent.high}
        possible = [place({fluent.name: value}) for value in sorted(values)]
        assert all(possible) if fluent in free else any(possible), f"place: {fluent.name} cannot be set"
        for value in (fluent.low - 1, fluent.high + 1, fluent.low + 0.5):
            assert not place({fluent.name: value}), f"place: {fluent.name} was set to {value}"
    assert not place({"no.such_fluent": 1}), "place: a fluent that does not exist was set"
    draw = np.random.default_rng(0)
    for _ in range(_WORLDS):
        assert place({f.name: int(draw.integers(f.low, f.high + 1)) for f in free}), "place: not all at once"


def _check_picture(adapter: Adapter, state: Any) -> None:
    if adapter.render is not None:
        picture = adapter.render(state)
        assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == "uint8", "render: not u8[H, W, 3]"
        assert len({*map(bytes, picture.reshape(-1, 3))}) > 1, "render: a picture of one colour"


def _check_knowledge(entry: Environment) -> None:
    """Check that every skill has a plan; planning executes it symbolically."""
    if entry.knowledge is not None:
        knowledge = load_knowledge(entry.knowledge, entry.vocabulary)
        for skill in knowledge.skills:
            make_plan(knowledge, skill)


def _check_transitions(entry: Environment) -> None:
    if entry.transitions is not None:
        recorded = load_transitions(entry.name)
        low, high = ([getattr(fluent, end) for fluent in entry.vocabulary.fluents] for end in ("low", "high"))
        for rows in (recorded.prev, recorded.now, recorded.start, recorded.resets):
            assert ((rows >= np.array(low)) & (rows <= np.array(high))).all(), "recorded: not in the fluents' ranges"


def _assert_equal(one: Any, other: Any, message: str) -> None:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs), message
