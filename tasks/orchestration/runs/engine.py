"""The process of a flow run: Prefect's engine, with rarer garbage collection, and interruptible by signals.

    python -P .../flowrl_core/installation.py tasks.orchestration.runs.engine

Importing creates hundreds of thousands of permanent objects: with the interpreter's default thresholds the collector
scans them again and again, a tenth of the processor time up to the flow's first line.
"""

from __future__ import annotations

import gc
import os
import runpy
import warnings
from typing import Any

from flowrl_core.compiled.numerics import drop_ignored
from flowrl_core.errors import InputError
from flowrl_core.signals import restore
from tasks.orchestration.server.prefect_settings import drop_modes

_THRESHOLDS = (100_000, 20, 100)


def _check_parameters() -> None:
    """Make Prefect's engine check each run's parameters before it binds them to the flow's signature.

    Otherwise the engine crashes on wrong parameters before the flow can report the problem.
    """
    from prefect import flow_engine

    from tasks.parameters import checked, refused

    run_flow = flow_engine.run_flow

    def run_checked(flow: Any, *, flow_run: Any, **options: Any) -> Any:
        try:
            parameters = checked(flow, flow_run.parameters)
        except InputError as exc:
            flow, parameters = refused, {"reason": str(exc)}
        return run_flow(flow, flow_run=flow_run, parameters=parameters, **options)

    flow_engine.run_flow = run_checked  # type: ignore[assignment]


if __name__ == "__main__":
    restore()
    gc.set_threshold(*_THRESHOLDS)
    drop_ignored(os.environ)
    drop_modes(os.environ)
    _check_parameters()
    # The check has imported the module already; running it as the main module always makes a second copy.
    warnings.filterwarnings("ignore", "'prefect.engine' found in sys.modules", RuntimeWarning)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
