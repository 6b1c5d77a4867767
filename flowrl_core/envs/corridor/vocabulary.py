"""The vocabulary of the corridor, and its rules as text for proposers of skills. No JAX here."""

from __future__ import annotations

from flowrl_core.vocabulary.model import Fluent, Vocabulary

__all__ = ["CORRIDOR", "CORRIDOR_ITEMS", "CORRIDOR_LENGTH"]

CORRIDOR_LENGTH = 6
CORRIDOR_ITEMS = tuple("abcdefghijklmnop")

_RULES = (
    "Six cells in a row; the player begins in a random one with nothing in hand.",
    "The mine is the last cell (dist.mine is 0 there): `dig` gives 1 a.",
    "The bench is the first cell (near.bench is true and dist.bench is 0 there).",
    "make_b to make_o use 1 a and give 1 of their kind, at the bench.",
    "make_p needs 1 each of b to m in hand, uses none of them and gives 1 p, at the bench.",
    "left and right go one cell and stop at the ends. Nothing kills, and nothing is lost.",
    "At most 9 of each item can be held.",
)

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
    rules=_RULES,
)
