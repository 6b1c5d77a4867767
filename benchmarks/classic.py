"""The table of all skills of Craftax-Classic that a home has learned, failed or not begun, for docs/results.md.

    make classic                                            # trains them, in groups; run it again to go on
    python benchmarks/classic.py --home .flowrl-classic     # prints the table

CPU minutes are those of the process that ended the run (a resumed run counts its last process alone).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from flowrl_core.skills.knowledge import load_knowledge
from flowrl_core.storage.layout import Home
from flowrl_core.storage.records.skills import SkillFigures
from flowrl_core.storage.registry import Registry

COLUMNS = ("skill", "state", "run frames", "CPU minutes", "success", "bound", "masks", "guards that acted", "why")


def row(home: Home, registry: Registry, name: str, figures: SkillFigures | None) -> tuple[str, ...]:
    """Return the cells of one skill; a skill without a run is said to be not begun."""
    if figures is None or figures.run is None:
        return (name, "not begun", *[""] * (len(COLUMNS) - 2))
    run = registry.skill_runs.get(figures.run)
    state = "learned" if figures.fact.learned else "failed" if run.verdict == "failed" else "not finished"
    success, bound = (
        "" if value is None else f"{value:.3f}" for value in (figures.success, figures.success_lower_bound)
    )
    return (
        name,
        state,
        f"{run.run_frames:,}" if run.verdict else "",
        cpu_minutes(home.archived_run(run.campaign, run.skill, run.ordinal).path / "timing.json"),
        success,
        bound,
        "yes" if run.config is not None and run.config.training.action_masks else "no",
        ", ".join(run.plan.guards) if run.plan is not None else "",
        "" if figures.fact.learned else figures.fact.reason,
    )


def cpu_minutes(timing: Path) -> str:
    """Return the processor time of a run's last process; empty while it is under way."""
    if not timing.is_file():
        return ""
    seconds = json.loads(timing.read_text(encoding="utf-8")).get("cpu_seconds", {}).get("ended")
    return "" if seconds is None else f"{seconds / 60:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".flowrl-classic"))
    parser.add_argument("--campaign", default="default")
    args = parser.parse_args()
    home, names = Home(args.home), load_knowledge("craftax-classic").skills
    with Registry.open(home) as registry:
        figures = registry.skills.figures(args.campaign)
        rows = [row(home, registry, name, figures.get(name)) for name in names]
    print(f"| {' | '.join(COLUMNS)} |")
    print("|" + "---|" * len(COLUMNS))
    for cells in rows:
        print(f"| {' | '.join(cells)} |")
    learned = sum(cells[1] == "learned" for cells in rows)
    print(f"\n{learned} of {len(rows)} skills learned")


if __name__ == "__main__":
    main()
