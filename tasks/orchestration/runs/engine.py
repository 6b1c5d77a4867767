"""What a worker starts for a flow run: Prefect's engine, with rarer garbage collections, and open to requests to end.

    python -P .../flowrl_core/installation.py tasks.orchestration.runs.engine

Importing makes hundreds of thousands of objects that stay: with the interpreter's thresholds they are searched for
garbage again and again, a tenth of the processor time to the flow's first line.
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
    """Let each run's parameters be checked before Prefect's engine binds them to the flow's signature.

    Where they do not fit it crashes, before the flow could say what is wrong with them.
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
    # That has imported it; what runs as the main module is another copy, as it always is.
    warnings.filterwarnings("ignore", "'prefect.engine' found in sys.modules", RuntimeWarning)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
