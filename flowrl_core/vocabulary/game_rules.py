"""The rules of each game in our own words, for who proposes skills. No JAX here.

Craftax-Classic's are those of the installed game (craftax 1.6.1, craftax_classic/game_logic.py); the corridor's are in
envs/corridor.py. Tests act the recipes out.
"""

from __future__ import annotations

__all__ = ["CORRIDOR_RULES", "CRAFTAX_CLASSIC_RULES"]

CRAFTAX_CLASSIC_RULES = (
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
    "Food falls by 1 in 26 steps, drink by 1 in 21, energy by 1 in 31; half as fast for food and drink in sleep.",
    "`sleep` works below 9 energy; asleep, energy rises by 1 in 11 steps and no action counts until it is 9.",
    "Being awake again gives ach.wake_up, also when a zombie's hit was what woke the player.",
    "Health rises by 1 in 26 steps while food, drink and energy are above 0, and falls by 1 in 16 steps otherwise.",
    "The player dies when health is 0 or when walking into lava. A day has 300 steps.",
    "ach.X is raised by the first X of an episode and stays raised.",
)

CORRIDOR_RULES = (
    "Six cells in a row; the player begins in a random one with nothing in hand.",
    "The mine is the last cell (dist.mine is 0 there): `dig` gives 1 a.",
    "The bench is the first cell (near.bench is true and dist.bench is 0 there).",
    "make_b to make_o use 1 a and give 1 of their kind, at the bench.",
    "make_p needs 1 each of b to m in hand, uses none of them and gives 1 p, at the bench.",
    "left and right go one cell and stop at the ends. Nothing kills, and nothing is lost.",
    "At most 9 of each item can be held.",
)
