"""The families of runs that FlowRL knows; housekeeping and backup ask each of them."""

from __future__ import annotations

from typing import Literal, get_args

from flowrl_core.stages.skill.family import SKILLS
from flowrl_core.storage.families import Family

__all__ = ["FAMILIES", "KINDS", "Kind"]

FAMILIES: tuple[Family, ...] = (SKILLS,)
"""All families; add a new one here."""

Kind = Literal["records", "runs", "versions", "sealed", "leftovers", "learners"]
"""A kind of garbage, including those of the families, as the parameter form lists them."""

KINDS: tuple[Kind, ...] = get_args(Kind)
