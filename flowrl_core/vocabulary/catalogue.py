"""What each environment lets skills speak of. No JAX here: the command line reads these in milliseconds."""

from __future__ import annotations

from flowrl_core.errors import InputError
from flowrl_core.nearest import remedy_for
from flowrl_core.vocabulary.game_rules import CORRIDOR_RULES, CRAFTAX_CLASSIC_RULES
from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = ["CORRIDOR", "CRAFTAX_CLASSIC", "ENVIRONMENTS", "vocabulary"]

_ITEMS = (
    "wood", "stone", "coal", "iron", "diamond", "sapling",
    "wood_pickaxe", "stone_pickaxe", "iron_pickaxe", "wood_sword", "stone_sword", "iron_sword",
)  # fmt: skip
_ACHIEVEMENTS = (
    "collect_wood", "place_table", "eat_cow", "collect_sapling", "collect_drink", "make_wood_pickaxe",
    "make_wood_sword", "place_plant", "defeat_zombie", "collect_stone", "place_stone", "eat_plant", "defeat_skeleton",
    "make_stone_pickaxe", "make_stone_sword", "wake_up", "place_furnace", "collect_coal", "collect_iron",
    "collect_diamond", "make_iron_pickaxe", "make_iron_sword",
)  # fmt: skip
_BLOCKS = (
    "grass", "water", "stone", "tree", "coal", "iron", "diamond", "crafting_table", "furnace", "plant", "ripe_plant",
)  # fmt: skip
_CREATURES = ("zombie", "cow", "skeleton")

# The view is 7 x 9 with the player in its middle: the farthest block in view is 3 + 4 steps away, and one more says
# "none".
CRAFTAX_CLASSIC = Vocabulary(
    env="craftax-classic",
    fluents=(
        *(Fluent(f"inv.{item}", "count", 0, 9) for item in _ITEMS),
        *(Fluent(f"ach.{name}", "flag", 0, 1) for name in _ACHIEVEMENTS),
        Fluent("near.crafting_table", "place", 0, 1),
        Fluent("near.furnace", "place", 0, 1),
        *(Fluent(vital, "vital", 0, 9) for vital in ("health", "food", "drink", "energy")),
        *(Fluent(f"dist.{kind}", "distance", 0, 8) for kind in (*_BLOCKS, *_CREATURES)),
    ),
    actions=(
        "noop",
        "left",
        "right",
        "up",
        "down",
        "do",
        "sleep",
        "place_stone",
        "place_table",
        "place_furnace",
        "place_plant",
        "make_wood_pickaxe",
        "make_stone_pickaxe",
        "make_iron_pickaxe",
        "make_wood_sword",
        "make_stone_sword",
        "make_iron_sword",
    ),  # fmt: skip
    targets=(*_BLOCKS, *_CREATURES),
    # 17 kinds of block and 4 of creature in each cell of the view, then 22 numbers.
    observation_size=7 * 9 * (17 + 4) + 22,
    rules=CRAFTAX_CLASSIC_RULES,
)

CORRIDOR_LENGTH = 6
CORRIDOR_ITEMS = tuple("abcdefghijklmnop")

# A corridor of six cells with a mine or a bench for sixteen kinds of item; see envs/corridor.py for its rules.
CORRIDOR = Vocabulary(
    env="corridor",
    fluents=(
        *(Fluent(f"inv.{item}", "count", 0, 9) for item in CORRIDOR_ITEMS),
        Fluent("near.bench", "place", 0, 1),
        Fluent("dist.bench", "distance", 0, CORRIDOR_LENGTH),
        Fluent("dist.mine", "distance", 0, CORRIDOR_LENGTH),
    ),
    actions=("left", "right", "dig", *(f"make_{item}" for item in CORRIDOR_ITEMS[1:])),
    targets=("bench", "mine"),
    observation_size=CORRIDOR_LENGTH + len(CORRIDOR_ITEMS),
    rules=CORRIDOR_RULES,
)

_ALL = {v.env: v for v in (CRAFTAX_CLASSIC, CORRIDOR)}
ENVIRONMENTS = tuple(_ALL)
"""The names of all environments."""


def vocabulary(env: str) -> Vocabulary:
    """The vocabulary of an environment.

    Raises:
        InputError: no such environment; the nearest names are given.
    """
    if env not in _ALL:
        raise InputError("env", f"there is no environment {env!r}", remedy_for(env, _ALL, most=2, cutoff=0.3))
    return _ALL[env]
