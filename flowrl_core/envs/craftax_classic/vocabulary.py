"""The vocabulary of Craftax-Classic, and its rules as text for proposers of skills. No JAX here.

The rules paraphrase those of the installed game (craftax 1.6.1, craftax_classic/game_logic.py). Tests play the recipes.
"""

from __future__ import annotations

from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = ["CRAFTAX_CLASSIC", "KINDS"]

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
_CREATURES = {"zombie": 5, "cow": 3, "skeleton": 3}
"""The creatures and their points of health."""
KINDS = (*_BLOCKS, *_CREATURES)
"""The kinds of block and creature that are seen."""
_GROUPS = (("enemy", ("zombie", "skeleton")),)
_MOST_BLOWS = 99

_RULES = (
    "The world is 64 x 64 cells. The view shows 7 rows and 9 columns with the player in its middle.",
    "dist.X is the number of steps (rows plus columns) to the nearest X in view; 8 means that none is in view.",
    "near.crafting_table and near.furnace are true when one is in any of the 8 cells around the player.",
    "A move turns the player and goes one cell; water, stone, trees, ores, tables, furnaces and plants stop it.",
    "`do` works on the one cell in front of the player; `place_*` puts something into that cell.",
    "At most 9 of each item can be held. A new world begins with nothing in hand and all four vitals at 9.",
    "tree: do gives 1 wood, and the tree becomes grass.",
    "grass: do gives 1 sapling with a chance of 1 in 10, and the grass stays.",
    "stone: do gives 1 stone with a wood_pickaxe in hand, and the cell becomes path.",
    "coal: do gives 1 coal with a wood_pickaxe in hand, and the cell becomes path.",
    "iron: do gives 1 iron with a stone_pickaxe in hand, and the cell becomes path.",
    "diamond: do gives 1 diamond with an iron_pickaxe in hand, and the cell becomes path.",
    "water: do gives 1 drink, and the water stays.",
    "place_table uses 2 wood; the cell in front must not be solid. Nothing takes a table or furnace back.",
    "place_furnace uses 1 stone; no table is needed.",
    "place_stone uses 1 stone, also on water or lava.",
    "place_plant uses 1 sapling and works on grass only. The plant is ripe after 600 steps.",
    "make_wood_pickaxe and make_wood_sword use 1 wood each, near a table.",
    "make_stone_pickaxe and make_stone_sword use 1 wood and 1 stone each, near a table.",
    "make_iron_pickaxe and make_iron_sword use 1 wood, 1 stone, 1 coal and 1 iron each, near a table and a furnace.",
    "Pickaxes and swords are never used up.",
    "Cows (3 points of health) walk on grass; hitting one dead with do gives 6 food.",
    "Eating a ripe_plant with do gives 4 food, and it becomes a young plant again; a young one gives nothing.",
    "Zombies (5 points) appear on grass and paths, more of them in the dark; beside the player they take 2 health at a "
    "time, 7 from one who sleeps.",
    "Skeletons (3 points) appear on paths and shoot arrows; each takes 2 health.",
    "A hit takes 1 point, or 2 for each wood_sword, 3 for each stone_sword, 5 for each iron_sword: the most of these.",
    "dealt.X is how many points the player's hits have taken from Xs in the episode, up to 99.",
    "taken.damage is how much health zombies and arrows have taken in the episode, up to 99; hunger, thirst and "
    "tiredness do not count.",
    "Food falls by 1 in 26 steps, drink by 1 in 21, energy by 1 in 31; half as fast for food and drink in sleep.",
    "`sleep` works below 9 energy; asleep, energy rises by 1 in 11 steps and no action counts until it is 9.",
    "Being awake again gives ach.wake_up, also when a zombie's hit was what woke the player.",
    "Health rises by 1 in 26 steps while food, drink and energy are above 0, and falls by 1 in 16 steps otherwise.",
    "The player dies when health is 0 or when walking into lava. A day has 300 steps.",
    "ach.X is raised by the first X of an episode and stays raised.",
)

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
        *(Fluent(f"dist.{kind}", "distance", 0, 8) for kind in KINDS),
        # What a creature has left is hidden. No blow takes more than it has, nor more from the player than there is.
        *(
            Fluent(f"dealt.{kind}", "total", 0, _MOST_BLOWS, is_hidden=True, most_gained=health)
            for kind, health in _CREATURES.items()
        ),
        Fluent("taken.damage", "total", 0, _MOST_BLOWS, most_gained=9),
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
    basic_actions=("noop", "left", "right", "up", "down", "do"),
    targets=(*KINDS, *(name for name, _ in _GROUPS)),
    groups=_GROUPS,
    shaping="0.03 * (gained.dealt.zombie + gained.dealt.skeleton)",
    # 17 kinds of block and 4 of creature in each cell of the view, then 22 numbers.
    observation_size=7 * 9 * (17 + 4) + 22,
    rules=_RULES,
)
