"""The flow that finds, or removes, what nothing needs any more."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

import flowrl_core.anchored  # noqa: F401  (before tasks: Prefect's own engine may know other ones)
from flowrl_core.quantities import Whole
from flowrl_core.stages.upkeep.families import KINDS, Kind
from tasks.options import FLOW
from tasks.upkeep.housekeeping import final_state, find, remove

__all__ = ["housekeeping"]


@flow(name="housekeeping", **FLOW)
def housekeeping(
    keep_days: Annotated[Whole, Field(ge=1, le=3_650)] = 30,
    delete: bool = False,
    what: list[Kind] = list(KINDS),  # noqa: B006  (a form shows a list; nothing changes it)
) -> State:
    """List data that is no longer needed; with `delete`, remove it. Campaigns may keep running.

    Args:
        keep_days: Days to keep records of ended runs, and compiled learners, after their last use
        delete: Remove what is found; off: only list it
        what: records: of ended runs. runs: directories that ended runs left behind. versions: parameters of experts
            that no head, bundle, open run or failed skill's next run needs. sealed: prepared inputs that no open run
            was given. leftovers: unfinished files of processes that died. learners: compiled programs, with worlds
    """
    found = find(keep_days, what)
    return final_state(found, remove(found, keep_days) if delete else None)
