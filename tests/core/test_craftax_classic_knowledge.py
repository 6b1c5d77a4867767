"""The shipped knowledge of Craftax-Classic, acted out in the game itself.

The game's own step function runs on a hand-made world: grass everywhere, with the block or creature that the skill is
about in front of the player, and table and furnace beside them where they are required.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic.constants import Achievement, Action, BlockType
from craftax.craftax_classic.envs.craftax_state import EnvParams, EnvState, Inventory, Mobs, StaticEnvParams
from craftax.craftax_classic.game_logic import craftax_step

from flowrl_core.envs.automaton import judge, lower_plan
from flowrl_core.envs.craftax_classic.vocabulary import CRAFTAX_CLASSIC
from flowrl_core.envs.guards import NONE
from flowrl_core.programs.language import check_done, check_reward
from flowrl_core.programs.reference import evaluate
from flowrl_core.programs.registers import fill, registers_of
from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.skills.model import Skill, Step
from flowrl_core.skills.planner import make_plan
from flowrl_core.skills.symbolic import execute, kept

KNOWLEDGE = load_knowledge("craftax-classic")
ITEMS = [f.name.removeprefix("inv.") for f in CRAFTAX_CLASSIC.fluents if f.name.startswith("inv.")]
PLACES = {"near.crafting_table": BlockType.CRAFTING_TABLE, "near.furnace": BlockType.FURNACE}
STATIC = StaticEnvParams()

PLANS = {
    "collect_wood": "collect_wood:4",
    "make_wood_sword": "collect_wood:3 place_table:1 make_wood_sword:1",
    "collect_sapling": "collect_sapling:1",
    "place_furnace": "collect_wood:3 place_table:1 make_wood_pickaxe:1 collect_stone:1 place_furnace:1",
    "make_stone_pickaxe": (
        "collect_wood:6 place_table:1 make_wood_pickaxe:1 collect_stone:1 place_table:1 make_stone_pickaxe:1"
    ),
    "make_iron_pickaxe": (
        "collect_wood:9 place_table:1 make_wood_pickaxe:1 collect_stone:3 collect_coal:1 place_table:1 "
        "make_stone_pickaxe:1 collect_iron:1 place_table:1 place_furnace:1 make_iron_pickaxe:1"
    ),
    "eat_plant": "collect_sapling:1 place_plant:1 eat_plant:1",
}


def test_the_skills_are_the_achievements_of_the_game() -> None:
    assert set(KNOWLEDGE.skills) == {achievement.name.lower() for achievement in Achievement}
    assert CRAFTAX_CLASSIC.actions == tuple(action.name.lower() for action in Action)


@pytest.mark.parametrize("target", PLANS)
def test_known_plans(target: str) -> None:
    plan = make_plan(KNOWLEDGE, target)
    assert " ".join(f"{step.skill}:{step.n}" for step in plan.steps) == PLANS[target]


@pytest.mark.parametrize("name", KNOWLEDGE.skills)
def test_every_plan_is_valid_and_at_most_24_steps(name: str) -> None:
    plan = make_plan(KNOWLEDGE, name)
    assert execute(plan, KNOWLEDGE)[KNOWLEDGE.skills[name].progress] > 0
    assert len(plan.steps) <= 24


# The hand-made world. The player stands at (r, c) and looks down; (r + 1, c) is the cell in front.


class World:
    """A state of the game and what happens to it."""

    def __init__(self, step: Callable[[Any, EnvState, int], EnvState]) -> None:
        self._step = step
        self._keys = iter(jax.random.split(jax.random.key(0), 4000))
        self.state = blank_state()

    def act(self, action: Action) -> None:
        self.state = self._step(next(self._keys), self.state, action.value)

    def move_on(self) -> None:
        """Go to a place where all is grass and nobody else is."""
        self.put(map=np.full(STATIC.map_size, BlockType.GRASS.value, np.int32))

    def face(self, block: BlockType) -> None:
        """Put a block in front of the player, and no creature."""
        world = np.asarray(self.state.map).copy()
        world[33, 32] = block.value
        nobody = {kind: replace(getattr(self.state, kind), mask=np.zeros(num, bool)) for kind, num in MOBS.items()}
        self.put(map=world, mob_map=np.zeros(STATIC.map_size, bool), player_direction=np.int32(4), **nobody)

    def face_creature(self, kind: str) -> None:
        """Put a creature with one point of health in front of the player."""
        self.face(BlockType.PATH)
        mobs = mob(MOBS[kind])
        mobs.position[0] = (33, 32)
        mobs.mask[0] = True
        occupied = np.zeros(STATIC.map_size, bool)
        occupied[33, 32] = True
        self.put(mob_map=occupied, **{kind: mobs})

    def stand_beside(self, place: str) -> None:
        """Put a table or furnace into a corner cell beside the player."""
        world = np.asarray(self.state.map).copy()
        world[31, 31 if place == "near.furnace" else 33] = PLACES[place].value
        self.put(map=world)

    def put(self, **fields: Any) -> None:
        """Change fields; the player stays well and in the middle."""
        self.state = self.state.replace(
            player_position=np.array([32, 32], np.int32), player_health=np.int32(9), **fields
        )

    def hold(self, **items: int) -> None:
        self.put(inventory=Inventory(**{item: np.int32(items.get(item, 0)) for item in ITEMS}))

    def fluents(self) -> dict[str, int]:
        """What skills speak of, read straight from the state (nothing is in view)."""
        state = self.state
        around = np.asarray(state.map)[31:34, 31:34]
        values: dict[str, int] = {f"inv.{item}": int(getattr(state.inventory, item)) for item in ITEMS}
        values |= {f"ach.{a.name.lower()}": int(state.achievements[a.value]) for a in Achievement}
        values |= {place: int((around == block.value).any()) for place, block in PLACES.items()}
        values |= {vital: int(getattr(state, f"player_{vital}")) for vital in ("health", "food", "drink", "energy")}
        return {f.name: values.get(f.name, 0 if f.kind == "total" else f.high) for f in CRAFTAX_CLASSIC.fluents}


MOBS = {"zombies": STATIC.max_zombies, "cows": STATIC.max_cows, "skeletons": STATIC.max_skeletons}


def mob(num: int) -> Mobs:
    return Mobs(np.zeros((num, 2), np.int32), np.ones(num, np.int32), np.zeros(num, bool), np.zeros(num, np.int32))


def blank_state() -> EnvState:
    nine, zero = np.int32(9), np.float32(0)
    plants = STATIC.max_growing_plants
    return EnvState(
        map=np.full(STATIC.map_size, BlockType.GRASS.value, np.int32),
        mob_map=np.zeros(STATIC.map_size, bool),
        player_position=np.array([32, 32], np.int32),
        player_direction=np.int32(4),
        player_health=nine,
        player_food=nine,
        player_drink=nine,
        player_energy=nine,
        is_sleeping=np.bool_(False),
        player_recover=zero,
        player_hunger=zero,
        player_thirst=zero,
        player_fatigue=zero,
        inventory=Inventory(**dict.fromkeys(ITEMS, np.int32(0))),
        **{kind: mob(num) for kind, num in MOBS.items()},
        arrows=mob(STATIC.max_arrows),
        arrow_directions=np.zeros((STATIC.max_arrows, 2), np.int32),
        growing_plants_positions=np.zeros((plants, 2), np.int32),
        growing_plants_age=np.zeros(plants, np.int32),
        growing_plants_mask=np.zeros(plants, bool),
        light_level=np.float32(1),
        achievements=np.zeros(len(Achievement), bool),
        state_rng=jax.random.key(1),
        timestep=np.int32(0),
    )


@pytest.fixture(scope="module")
def step() -> Callable[[Any, EnvState, int], EnvState]:
    """The game's step function, compiled once. Nobody new appears, so that only the player acts."""
    params = EnvParams(
        spawn_cow_chance=0, spawn_zombie_base_chance=0, spawn_zombie_night_chance=0, spawn_skeleton_chance=0
    )

    @jax.jit
    def step(key: jax.Array, state: EnvState, action: jax.Array) -> EnvState:
        after, _ = craftax_step(key, state, action, params, STATIC)
        return after

    return lambda key, state, action: jax.device_get(step(key, jax.tree.map(jnp.asarray, state), jnp.int32(action)))


@pytest.fixture
def world(step: Callable[[Any, EnvState, int], EnvState]) -> World:
    return World(step)


# How each skill is acted out once, given what it requires.


def collect(block: BlockType) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.face(block)
        world.act(Action.DO)

    return act


def use(action: Action) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.face(BlockType.GRASS)
        world.act(action)

    return act


def hit(kind: str) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.face_creature(kind)
        world.act(Action.DO)

    return act


def search_grass(world: World) -> None:
    held = int(world.state.inventory.sapling)
    for _ in range(300):
        if int(world.state.inventory.sapling) > held:
            return
        world.face(BlockType.GRASS)
        world.act(Action.DO)


def sleep(world: World) -> None:
    world.face(BlockType.GRASS)
    world.put(player_energy=np.int32(8))
    world.act(Action.SLEEP)
    for _ in range(40):
        if not world.state.is_sleeping:
            return
        world.act(Action.NOOP)


def eat_plant(world: World) -> None:
    """The plant that is there (if there is one) ripens, then it is eaten."""
    world.put(growing_plants_age=np.where(world.state.growing_plants_mask, 599, 0).astype(np.int32))
    world.act(Action.NOOP)
    world.act(Action.DO)


ACTS: dict[str, Callable[[World], None]] = {
    **{f"collect_{name}": collect(BlockType[name.upper()]) for name in ("wood", "stone", "coal", "iron", "diamond")},
    "collect_wood": collect(BlockType.TREE),
    "collect_drink": collect(BlockType.WATER),
    "collect_sapling": search_grass,
    "eat_plant": eat_plant,
    "wake_up": sleep,
    "eat_cow": hit("cows"),
    "defeat_zombie": hit("zombies"),
    "defeat_skeleton": hit("skeletons"),
    **{
        action.name.lower(): use(action)
        for action in Action
        if action.name.startswith(("MAKE_", "PLACE_"))
    },
}  # fmt: skip


def set_up(world: World, skill: Skill, *, without: str = "") -> None:
    """Everything the skill needs for n = 1, exactly; one unit less of the fluent `without`."""
    amounts: dict[str, int] = {}
    for part in (skill.requirements, skill.consumption):
        for fluent, amount in part.items():
            amounts[fluent] = max(amounts.get(fluent, 0), amount.at(1)) - (fluent == without)
    world.hold(**{f.removeprefix("inv."): a for f, a in amounts.items() if f.startswith("inv.")})
    for place in PLACES:
        if amounts.get(place):
            world.stand_beside(place)
    if amounts.get("ach.place_plant"):
        ready = world.state.inventory
        world.hold(sapling=1)
        ACTS["place_plant"](world)
        world.put(inventory=ready)


@pytest.mark.parametrize("name", KNOWLEDGE.skills)
def test_a_recipe_brings_and_uses_in_the_game_what_the_knowledge_says(world: World, name: str) -> None:
    skill = KNOWLEDGE.skills[name]
    set_up(world, skill)
    before = world.fluents()
    ACTS[name](world)
    after = world.fluents()
    expected = dict(before)
    for fluent, amount in skill.consumption.items():
        expected[fluent] -= amount.at(1)
    for fluent, amount in skill.gain.items():
        expected[fluent] = expected[fluent] + amount.at(1) if fluent.startswith("inv.") else 1
    told = [fluent for fluent in before if fluent.startswith(("inv.", "ach.", "near."))]
    assert {fluent: after[fluent] for fluent in told} == {fluent: expected[fluent] for fluent in told}


ADVISED = {("defeat_skeleton", "inv.wood_pickaxe"), ("defeat_skeleton", "inv.stone_sword")}
"""Requirements of which the game knows nothing: to look for skeletons without them is to die."""
LACKING = [
    (skill.name, fluent)
    for skill in KNOWLEDGE.skills.values()
    for fluent in {**skill.requirements, **skill.consumption}
    if any(part[fluent].at(1) for part in (skill.requirements, skill.consumption) if fluent in part)
    and (skill.name, fluent) not in ADVISED
]


@pytest.mark.parametrize(("name", "fluent"), LACKING)
def test_a_recipe_brings_nothing_with_one_unit_less(world: World, name: str, fluent: str) -> None:
    skill = KNOWLEDGE.skills[name]
    set_up(world, skill, without=fluent)
    before = world.fluents()
    ACTS[name](world)
    after = world.fluents()
    assert all(after[gained] == before[gained] for gained in skill.gain)


@pytest.mark.parametrize("name", KNOWLEDGE.skills)
def test_the_programs_say_done_and_reward_it_when_the_recipe_was_acted_out(world: World, name: str) -> None:
    skill = KNOWLEDGE.skills[name]
    layout = registers_of(CRAFTAX_CLASSIC)
    done = check_done(skill.program.done, CRAFTAX_CLASSIC).expression
    reward = check_reward(skill.program.reward, CRAFTAX_CLASSIC).expression
    set_up(world, skill)
    start = np.array(list(world.fluents().values()))
    ACTS[name](world)
    now = np.array(list(world.fluents().values()))
    not_yet = fill(np, start, start, start, np.array(1), layout)
    moment = fill(np, now, start, start, np.array(1), layout)
    assert not evaluate(done, not_yet, layout) and evaluate(done, moment, layout)
    assert evaluate(reward, not_yet, layout) == 0 < evaluate(reward, moment, layout)


@pytest.mark.parametrize("name", KNOWLEDGE.skills)
def test_a_plan_acted_out_in_the_game_ends_with_its_target(world: World, name: str) -> None:
    for step in make_plan(KNOWLEDGE, name).steps:
        act_out(world, step)
    after = world.fluents()
    assert all(after[fluent] for fluent in KNOWLEDGE.skills[name].gain)


@pytest.mark.parametrize("is_table_near", [True, False])
def test_the_furnace_of_an_iron_tool_counts_only_where_the_table_is_in_reach(world: World, is_table_near: bool) -> None:
    plan = make_plan(KNOWLEDGE, "make_iron_pickaxe")
    number = next(i for i, step in enumerate(plan.steps) if step.skill == "place_furnace")
    keep = kept(plan, KNOWLEDGE.skills, KNOWLEDGE.fluents)[number]
    world.hold(**{name.removeprefix("inv."): n for name, n in keep.items() if name.startswith("inv.")} | {"stone": 2})
    if is_table_near:
        world.stand_beside("near.crafting_table")
    before = read(world)
    ACTS["place_furnace"](world)
    adapter = SimpleNamespace(vocabulary=CRAFTAX_CLASSIC)
    experts = dict.fromkeys(plan.skills, 0)
    arrays = lower_plan(plan, KNOWLEDGE.skills, experts, CRAFTAX_CLASSIC, episode_limit=500)
    found = judge(adapter, arrays, jnp.array([number]), jnp.array([NONE]), read(world), before, before)  # type: ignore[arg-type]
    assert world.fluents()["near.furnace"] and not found.is_stranded[0]
    assert bool(found.is_done[0]) == is_table_near
    assert float(found.reward[0]) == (1.0 if is_table_near else 0.0)
    after = judge(adapter, arrays, jnp.array([number]), jnp.array([NONE]), read(world), read(world), before)  # type: ignore[arg-type]
    assert float(after.reward[0]) == (1.0 if is_table_near else 0.0), "waiting in the wrong place pays nothing"


def read(world: World) -> jax.Array:
    return jnp.array([list(world.fluents().values())], jnp.float32)


def act_out(world: World, step: Step) -> None:
    """One step of a plan: whatever its skill does not name is left behind."""
    skill = KNOWLEDGE.skills[step.skill]
    kept = [place for place in PLACES if place in skill.requirements and world.fluents()[place]]
    if step.skill != "eat_plant":
        world.move_on()
    for place in kept:
        world.stand_beside(place)
    before = world.fluents()
    for _ in range(step.n):
        ACTS[step.skill](world)
    after = world.fluents()
    assert after[skill.progress] - before[skill.progress] * skill.progress.startswith("inv.") == skill.gain[
        skill.progress
    ].at(step.n)


def test_an_episode_of_eat_plant_is_longer_than_a_plant_takes_to_ripen(world: World) -> None:
    world.hold(sapling=1)
    ACTS["place_plant"](world)
    steps = 0
    while world.state.map[33, 32] != BlockType.RIPE_PLANT.value:
        world.put(player_food=np.int32(9), player_drink=np.int32(9))
        world.act(Action.NOOP)
        steps += 1
        assert steps <= 1000
    assert steps * 1.5 < KNOWLEDGE.training["eat_plant"]["episode_limit"]


# What the rules in words say besides the recipes.


@pytest.mark.parametrize(("tools", "damage"), [({}, 1), ({"wood_sword": 1}, 2), ({"wood_sword": 2}, 4),
                                               ({"stone_sword": 1}, 3), ({"iron_sword": 1}, 5)])  # fmt: skip
def test_a_hit_takes_as_much_as_the_rules_say(world: World, tools: dict[str, int], damage: int) -> None:
    world.hold(**tools)
    world.face_creature("zombies")
    zombies = world.state.zombies
    world.put(zombies=replace(zombies, health=np.full_like(zombies.health, 9)))
    world.act(Action.DO)
    assert int(world.state.zombies.health[0]) == 9 - damage


def test_food_and_drink_rise_as_much_as_the_rules_say(world: World) -> None:
    world.put(player_food=np.int32(1), player_drink=np.int32(1))
    ACTS["collect_drink"](world)
    assert int(world.state.player_drink) == 2 and world.state.map[33, 32] == BlockType.WATER.value
    ACTS["eat_cow"](world)
    assert int(world.state.player_food) == 7
    world.put(player_food=np.int32(1))
    world.face(BlockType.RIPE_PLANT)
    world.act(Action.DO)
    assert int(world.state.player_food) == 5 and world.state.map[33, 32] == BlockType.PLANT.value


@pytest.mark.parametrize(
    ("block", "tool", "left"),
    [("TREE", "", "GRASS"), ("STONE", "wood_pickaxe", "PATH"), ("COAL", "wood_pickaxe", "PATH"),
     ("IRON", "stone_pickaxe", "PATH"), ("DIAMOND", "iron_pickaxe", "PATH")],
)  # fmt: skip
def test_blocks_turn_into_what_the_rules_say(world: World, block: str, tool: str, left: str) -> None:
    world.hold(**({tool: 1} if tool else {}))
    collect(BlockType[block])(world)
    assert world.state.map[33, 32] == BlockType[left].value


def test_stone_can_be_put_on_water_and_on_lava(world: World) -> None:
    for block in (BlockType.WATER, BlockType.LAVA):
        world.hold(stone=1)
        world.face(block)
        world.act(Action.PLACE_STONE)
        assert world.state.map[33, 32] == BlockType.STONE.value and not world.state.inventory.stone


@pytest.mark.parametrize(("vital", "steps"), [("food", 26), ("drink", 21), ("energy", 31)])
def test_vitals_fall_as_fast_as_the_rules_say(world: World, vital: str, steps: int) -> None:
    for step in range(1, 100):
        world.act(Action.NOOP)
        if getattr(world.state, f"player_{vital}") < 9:
            assert step == steps
            return
    raise AssertionError(f"{vital} never fell")
