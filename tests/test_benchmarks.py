"""What the benchmarks of whole training do with what they measure."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_worker_answers_each_request_whatever_else_is_printed(tmp_path: Path) -> None:
    from workers import Worker

    script = tmp_path / "measured.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from workers import serve\n"
        "calls = []\n"
        "def run():\n"
        "    print('noise')\n"
        "    calls.append(1)\n"
        "    return {'frames': len(calls)}\n"
        "serve(lambda: run)\n"
    )
    with Worker([sys.executable, str(script)]) as worker:
        assert worker.wait()["cores"] >= 1
        answers = [worker.measure() for _ in range(2)]
    assert [answer["frames"] for answer in answers] == [2, 3]  # the first call warms up
    assert all(answer["peak_mib"] > 1 and answer["seconds"] >= 0 for answer in answers)


def test_a_worker_that_dies_is_named(tmp_path: Path) -> None:
    from workers import Worker

    with pytest.raises(RuntimeError, match="status 3"), Worker([sys.executable, "-c", "raise SystemExit(3)"]) as worker:
        worker.wait()


def test_ratios_are_taken_pair_by_pair() -> None:
    from speed import REFERENCE, _row

    def answers(*seconds: float) -> list[dict[str, float]]:
        return [{"frames": 12, "seconds": s, "cpu_seconds": 2 * s, "peak_mib": 5} for s in seconds]

    row = _row("small", "peer", {REFERENCE: answers(1, 2, 4), "peer": answers(2, 6, 4)}, cores=1)
    assert (row.ratio, row.cpu_ratio, row.frames_per_second) == (2, 2, 3)


def test_a_run_that_did_not_get_there_counts_as_longer_than_all() -> None:
    from frames import Row, median_frames

    rows = [Row("ours", seed, frames, 1, 1, 1) for seed, frames in enumerate((5, math.nan, 3))]
    assert median_frames(rows, "ours") == 5
    assert math.isnan(median_frames(rows, "original"))


def test_the_originals_estimate_needs_a_success_of_every_step() -> None:
    from frames import rollout_success

    stats = SimpleNamespace(attempts=[4, 2, 0, 9], successes=[3, 1, 0, 9])
    assert rollout_success(stats, 2) == 3 / 8
    assert rollout_success(stats, 3) == 0
