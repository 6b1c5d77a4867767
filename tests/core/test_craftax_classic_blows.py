"""Fights acted out in Craftax-Classic: what the counters of blows say after each step of the game itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic.constants import Action, BlockType

from flowrl_core.envs.adapter import make_adapter
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC

pytestmark = pytest.mark.long

NAMES = [fluent.name for fluent in CRAFTAX_CLASSIC.fluents]
TOTALS = [fluent.name for fluent in CRAFTAX_CLASSIC.fluents if fluent.kind == "total"]
MOBS = {"zombie": "zombies", "cow": "cows", "skeleton": "skeletons"}
HEALTH = {"zombie": 5, "cow": 3, "skeleton": 3}
FRONT, BESIDE = (1, 0), (0, 1)


class Fight:
    """A world of grass. The player stands at (32, 32) and looks at (33, 32); nobody else is there yet."""

    def __init__(self, adapter: Any, step: Any, state: Any) -> None:
        self._adapter, self._step, self._types, self.state = adapter, step, state, state
        self.put(
            map=jnp.full_like(state.map, BlockType.GRASS.value),
            mob_map=jnp.zeros_like(state.mob_map),
            player_position=jnp.array([32, 32], jnp.int32),
            player_direction=jnp.int32(4),
        )
        for name in (*MOBS.values(), "arrows"):
            mobs = getattr(state, name)
            self.put(**{name: mobs.replace(mask=jnp.zeros_like(mobs.mask), health=jnp.zeros_like(mobs.health))})

    def put(self, **fields: Any) -> None:
        self.state = self.state.replace(**fields)

    def set(self, **fluents: float) -> None:
        named = {name.replace("_", ".", 1) if name not in NAMES else name: value for name, value in fluents.items()}
        self.state = self._adapter.place(self.state, named)[1]

    def creature(self, kind: str, at: tuple[int, int] = FRONT, *, health: int | None = None, waits: int = 9) -> None:
        """Put a creature beside the player that attacks after `waits` steps."""
        mobs, cell = getattr(self.state, MOBS[kind]), (32 + at[0], 32 + at[1])
        slot = int(mobs.mask.sum())
        mobs = mobs.replace(
            position=mobs.position.at[slot].set(jnp.array(cell)),
            health=mobs.health.at[slot].set(HEALTH[kind] if health is None else health),
            mask=mobs.mask.at[slot].set(True),
            attack_cooldown=mobs.attack_cooldown.at[slot].set(waits),
        )
        self.put(mob_map=self.state.mob_map.at[cell].set(True), **{MOBS[kind]: mobs})

    def arrow(self, at: tuple[int, int], direction: tuple[int, int]) -> None:
        arrows = self.state.arrows
        arrows = arrows.replace(
            position=arrows.position.at[0].set(jnp.array([32 + at[0], 32 + at[1]])), mask=arrows.mask.at[0].set(True)
        )
        self.put(arrows=arrows, arrow_directions=self.state.arrow_directions.at[0].set(jnp.array(direction)))

    def act(self, action: Action) -> dict[str, int]:
        """Take a step and return the totals that are not 0, and the health, after it."""
        # Equal types, so that the step is compiled once.
        state = jax.tree.map(lambda leaf, of: jnp.asarray(np.asarray(leaf), of.dtype), self.state, self._types)
        obs, self.state, _ = self._step(jax.random.PRNGKey(5), state, jnp.int32(action.value))
        row = dict(zip(NAMES, np.asarray(self._adapter.read(obs, self.state)).astype(int).tolist(), strict=True))
        return {name: row[name] for name in TOTALS if row[name]} | {"health": row["health"]}


@pytest.fixture(scope="module")
def made() -> tuple[Any, ...]:
    adapter = make_adapter("craftax-classic")
    obs, state = jax.jit(adapter.reset)(jax.random.PRNGKey(3))
    return adapter, jax.jit(adapter.step), state, obs


@pytest.fixture
def fight(made: tuple[Any, ...]) -> Fight:
    return Fight(*made[:3])


WEAPONS = [({}, 1), ({"inv_wood_sword": 1}, 2), ({"inv_stone_sword": 1}, 3), ({"inv_iron_sword": 1}, 5),
           ({"inv_wood_sword": 2, "inv_stone_sword": 1}, 4)]  # fmt: skip


@pytest.mark.parametrize("kind", MOBS)
@pytest.mark.parametrize(("weapons", "damage"), WEAPONS)
def test_a_blow_counts_what_it_takes_and_no_more_than_is_left(
    fight: Fight, kind: str, weapons: dict[str, int], damage: int
) -> None:
    fight.set(**weapons)
    fight.creature(kind)
    assert fight.act(Action.DO) == {f"dealt.{kind}": min(damage, HEALTH[kind]), "health": 9}


@pytest.mark.parametrize("kind", MOBS)
def test_a_kill_with_bare_hands_counts_the_whole_health_once(fight: Fight, kind: str) -> None:
    for health in range(HEALTH[kind], 0, -1):
        mobs = getattr(fight.state, MOBS[kind])
        fight.put(**{MOBS[kind]: mobs.replace(mask=jnp.zeros_like(mobs.mask), health=jnp.zeros_like(mobs.health))})
        fight.creature(kind, health=health)
        counted = fight.act(Action.DO)
    assert counted == {f"dealt.{kind}": HEALTH[kind], "health": 9}
    assert not getattr(fight.state, MOBS[kind]).mask.any()


@pytest.mark.parametrize("action", [Action.NOOP, Action.SLEEP, Action.PLACE_STONE, Action.LEFT])
def test_only_do_strikes(fight: Fight, action: Action) -> None:
    fight.creature("zombie")
    assert fight.act(action) == {"health": 9}


def test_only_the_faced_creature_is_struck(fight: Fight) -> None:
    fight.creature("cow", BESIDE)
    assert fight.act(Action.DO) == {"health": 9}
    fight.creature("zombie", FRONT)
    assert fight.act(Action.DO) == {"dealt.zombie": 1, "health": 9}


def test_a_sleeper_strikes_nobody(fight: Fight) -> None:
    fight.put(is_sleeping=jnp.bool_(True))
    fight.set(energy=5)
    fight.creature("zombie")
    assert fight.act(Action.DO) == {"health": 9}


@pytest.mark.parametrize(("is_sleeping", "damage"), [(False, 2), (True, 7)])
def test_a_zombies_blow_takes_more_from_a_sleeper(fight: Fight, is_sleeping: bool, damage: int) -> None:
    fight.set(energy=5)
    fight.put(is_sleeping=jnp.bool_(is_sleeping))
    fight.creature("zombie", BESIDE, waits=0)
    assert fight.act(Action.NOOP) == {"taken.damage": damage, "health": 9 - damage}


def test_two_zombies_wake_the_sleeper_with_the_first_blow(fight: Fight) -> None:
    fight.set(energy=5)
    fight.put(is_sleeping=jnp.bool_(True))
    fight.creature("zombie", BESIDE, waits=0)
    fight.creature("zombie", FRONT, waits=0)
    assert fight.act(Action.NOOP) == {"taken.damage": 9, "health": 0}


def test_an_arrow_takes_two_and_one_that_flies_by_nothing(fight: Fight) -> None:
    fight.arrow((0, -1), (0, 1))
    assert fight.act(Action.NOOP) == {"taken.damage": 2, "health": 7}
    fight.arrow((1, -1), (0, 1))
    assert fight.act(Action.NOOP) == {"taken.damage": 2, "health": 7}


def test_the_last_blow_counts_only_the_health_that_is_left(fight: Fight) -> None:
    fight.set(health=1)
    fight.creature("zombie", BESIDE, waits=0)
    assert fight.act(Action.NOOP) == {"taken.damage": 1, "health": 0}


@pytest.mark.parametrize("vital", ["food", "drink", "energy"])
def test_want_takes_health_that_no_blow_took(fight: Fight, vital: str) -> None:
    fight.set(**{vital: 0})
    fight.put(player_recover=jnp.float32(-15.5))
    assert fight.act(Action.NOOP) == {"health": 8}


def test_a_blow_is_told_from_what_hunger_takes_and_rest_gives_in_the_same_step(fight: Fight) -> None:
    fight.creature("zombie", BESIDE, waits=0)
    fight.put(player_recover=jnp.float32(25.5))
    assert fight.act(Action.NOOP) == {"taken.damage": 2, "health": 8}
    fight.put(player_recover=jnp.float32(-15.5), player_food=jnp.int32(0))
    fight.arrow((0, -1), (0, 1))
    assert fight.act(Action.NOOP) == {"taken.damage": 4, "health": 5}


def test_lava_is_no_blow(fight: Fight) -> None:
    fight.put(map=fight.state.map.at[33, 32].set(BlockType.LAVA.value))
    assert fight.act(Action.DOWN) == {"health": 0}


def test_striking_and_being_struck_count_side_by_side(fight: Fight) -> None:
    fight.creature("zombie", FRONT, waits=0)
    assert fight.act(Action.DO) == {"dealt.zombie": 1, "taken.damage": 2, "health": 7}


def test_counters_stop_at_their_highest_value(fight: Fight) -> None:
    fight.set(dealt_zombie=98, dealt_cow=99, taken_damage=98, inv_stone_sword=1)
    fight.creature("zombie", FRONT, waits=0)
    expected = {"dealt.zombie": 99, "dealt.cow": 99, "taken.damage": 99, "health": 7}
    assert fight.act(Action.DO) == expected


def test_a_new_world_counts_from_zero(made: tuple[Any, ...]) -> None:
    adapter, _, state, obs = made
    assert not np.asarray(adapter.read(obs, state))[[NAMES.index(name) for name in TOTALS]].any()
