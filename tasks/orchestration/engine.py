"""What a worker starts for a flow run: Prefect's engine, with rarer garbage collections, and open to requests to end.

    python -P .../flowrl_core/installation.py tasks.orchestration.engine

Importing makes hundreds of thousands of objects that stay: with the interpreter's thresholds they are searched for
garbage again and again, a tenth of the processor time to the flow's first line.
"""

from __future__ import annotations

import gc
import os
import runpy

from flowrl_core.learning.numerics import drop_ignored
from flowrl_core.signals import restore
from tasks.orchestration.prefect_settings import drop_modes

_THRESHOLDS = (100_000, 20, 100)

if __name__ == "__main__":
    restore()
    gc.set_threshold(*_THRESHOLDS)
    drop_ignored(os.environ)
    drop_modes(os.environ)
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
